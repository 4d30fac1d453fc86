package debug

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
)

//go:embed page.html
var pageHTML []byte

//go:embed page.css
var pageCSS []byte

//go:embed page.js
var pageJS []byte

// The page is the same for every request. The browser fetches the content as JSON, and writes it
// as text, never as HTML. The policy allows this script, this style and requests to this server,
// and nothing else.
var (
	page   = assemble()
	policy = "default-src 'none'; script-src '" + hashOf(pageJS) + "'; style-src '" + hashOf(pageCSS) +
		"'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func assemble() []byte {
	p := bytes.Replace(pageHTML, []byte("/*STYLE*/"), pageCSS, 1)
	return bytes.Replace(p, []byte("/*SCRIPT*/"), pageJS, 1)
}

// hashOf returns the hash of an inline script or style, as a policy wants it.
func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
