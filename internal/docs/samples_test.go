package docs_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/pressure"
)

// A sample is a fenced block of a page.
type sample struct{ page, language, code string }

var fence = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?\n)?```$")

// samples returns the fenced blocks of all pages in a language, or in all of them.
func samples(t *testing.T, language string) (all []sample) {
	t.Helper()
	for _, name := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(string(read(t, name)), -1) {
			if language == "" || m[1] == language {
				all = append(all, sample{name, m[1], m[2]})
			}
		}
	}
	return all
}

// Each language has a test, here or where it says.
func TestLanguages(t *testing.T) {
	checked := map[string]string{
		"go": "TestBlocks", "java": "not weir's", "js": "TestJavaScript", "proto": "TestProto",
		"sh": "ops, which runs the commands", "text": "ops, which compares the answers", "yaml": "ops, which reads them",
	}
	for _, s := range samples(t, "") {
		inOps := strings.HasPrefix(s.page, "ops/")
		if checked[s.language] == "" || (s.language == "sh" || s.language == "text") && !inOps {
			t.Errorf("%s: got a block of %s, want one that a test checks: %v", s.page, s.language, checked)
		}
	}
}

// readers are the readers of the JSON documents that users write.
var readers = map[string]func(document []byte) error{
	"admit.FromJSON": func(document []byte) error {
		o, err := admit.FromJSON(document)
		if err == nil {
			_, err = admit.New(admit.WithClassConfig(4, admit.ClassConfig{Name: "reports"}), o)
		}
		return err
	},
	"a limit in admit.FromJSON": func(document []byte) error {
		_, err := admit.FromJSON([]byte(`{"limit": ` + string(document) + `}`))
		return err
	},
	"gates.FromJSON": func(document []byte) error {
		_, err := gates.FromJSON(document)
		return err
	},
	"pressure.FromJSON": func(document []byte) error {
		o, err := pressure.FromJSON(document)
		if err == nil {
			_, err = pressure.New(o)
		}
		return err
	},
	"a message with control": func(document []byte) error {
		return protojson.Unmarshal(document, &demopb.SubscribeRequest{})
	},
}

// readJSON returns nil if one of the readers takes a document, and otherwise all errors.
func readJSON(document string) error {
	var all []error
	for _, read := range readers {
		err := read([]byte(document))
		if err == nil {
			return nil
		}
		all = append(all, err)
	}
	return errors.Join(all...)
}

var (
	commentLine = regexp.MustCompile(`(?m)^\s*// ?(.*)$`)
	// jsonInQuotes is an argument of a command.
	jsonInQuotes = regexp.MustCompile(`'(\{".*?\})'`)
)

// documentsIn returns the JSON documents in the comments of a Go file, which begin a line.
func documentsIn(source string) (all []string) {
	var lines []string
	for _, m := range commentLine.FindAllStringSubmatch(source, -1) {
		lines = append(lines, strings.TrimPrefix(m[1], "\t"))
	}
	text := strings.Join(lines, "\n")
	for {
		at := regexp.MustCompile(`(?m)^\{(?:"|$)`).FindStringIndex(text)
		if at == nil {
			return all
		}
		dec := json.NewDecoder(strings.NewReader(text[at[0]:]))
		var document json.RawMessage
		if err := dec.Decode(&document); err != nil {
			document = json.RawMessage(text[at[0]:at[1]])
		}
		all = append(all, string(document))
		text = text[at[0]+max(1, int(dec.InputOffset())):]
	}
}

// Every JSON document in a page or in a comment is one that weir reads.
func TestJSON(t *testing.T) {
	found := 0
	check := func(where, document string) {
		found++
		if err := readJSON(document); err != nil {
			t.Errorf("%s: got errors, want a document that weir reads:\n%s\n%v", where, document, err)
		}
	}
	for _, name := range pages(t) {
		for _, m := range jsonInQuotes.FindAllSubmatch(read(t, name), -1) {
			check(name, string(m[1]))
		}
	}
	for _, dir := range []string{"admit", "interceptors", "pressure", "streamcredit"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(name string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			source, err := os.ReadFile(name)
			for _, d := range documentsIn(string(source)) {
				check(name, d)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found < 9 {
		t.Errorf("documents: got %d, want those of pages and comments", found)
	}
}

// The check itself.
func TestJSONIsFound(t *testing.T) {
	got := documentsIn("// F reads\n//\n//\t{\n//\t  \"a\": 1\n//\t}\n//\n// and\n// {\"b\":2} ends.\nfunc F() {\n}\n//\t{\"c\"\n")
	if want := []string{"{\n  \"a\": 1\n}", `{"b":2}`, `{"`}; !slices.Equal(got, want) {
		t.Errorf("documents: got %q, want %q", got, want)
	}
	for document, ok := range map[string]bool{
		`{"max_open": 3}`: true, `{"max_opn": 3}`: false, `{"algorithm": "fixed", "limit": 2}`: true,
		`{"marks": {"high": 0.1}}`: false, `{"credit": {"open": {"willReceive": true}}}`: true, `{"a"`: false,
	} {
		if err := readJSON(document); (err == nil) != ok {
			t.Errorf("%s: got %v, want read: %v", document, err, ok)
		}
	}
}

var rpcLine = regexp.MustCompile(`^rpc \w+\((?:stream )?(\w+)\) returns \((?:stream )?(\w+)\);(?:\s+// .*)?$`)

// A block of proto declares methods with messages of the demo.
func TestProto(t *testing.T) {
	all := samples(t, "proto")
	if len(all) == 0 {
		t.Error("blocks of proto: got none, want that of docs/streams.md")
	}
	messages := demopb.File_weir_demo_v1_stream_proto.Messages()
	for _, s := range all {
		for line := range strings.Lines(s.code) {
			m := rpcLine.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil || slices.ContainsFunc(m[1:], func(name string) bool { return messages.ByName(protoreflect.Name(name)) == nil }) {
				t.Errorf("%s: got %q, want a method with messages of the demo", s.page, line)
			}
		}
	}
}

// around runs the block with a client that prints every written message, and delivers the server's
// Open and then 40 elements.
const around = `
let receive;
const client = { subscribe: () => ({
  on: (name, f) => { receive = f; },
  write: (message) => console.log(JSON.stringify(message)),
}) };
let shown = 0;
const show = () => { shown++; };
BLOCK
receive({ credit: { open: {} } });
for (let n = 1; n <= 40; n++) receive({ number: n });
if (shown !== 40) throw new Error("got " + shown + " elements, want 40");
`

// A block of JavaScript asks for elements by the protocol, in messages of the proto.
func TestJavaScript(t *testing.T) {
	all := samples(t, "js")
	if len(all) == 0 {
		t.Error("blocks of JavaScript: got none, want that of docs/streams.md")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("node is not installed: %v", err)
	}
	for _, s := range all {
		out, err := exec.CommandContext(t.Context(), node, "-e", strings.Replace(around, "BLOCK", s.code, 1)).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil || len(lines) != 2 {
			t.Errorf("%s: got %v and %s, want an Open and a Request", s.page, err, out)
			continue
		}
		var open, request demopb.SubscribeRequest
		for i, m := range []*demopb.SubscribeRequest{&open, &request} {
			if err := protojson.Unmarshal([]byte(lines[i]), m); err != nil {
				t.Errorf("%s: got %s, want a message of the proto: %v", s.page, lines[i], err)
			}
		}
		if o := open.GetCredit(); !o.GetWithData() || !o.GetOpen().GetWillReceive() || o.GetOpen().GetInitial().GetN() != 64 {
			t.Errorf("%s: got %s, want an Open with data that asks for 64 elements", s.page, lines[0])
		}
		if r := request.GetCredit().GetRequest(); r.GetN() != 32 || r.GetConsumed() != 32 {
			t.Errorf("%s: got %s, want a Request of 32 elements after 32", s.page, lines[1])
		}
	}
}
