package debug

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// mostText is the number of characters that the page shows of a name.
const mostText = 120

// clean makes a name that a caller chose safe to show. It cuts the name off, and replaces
// characters that are not printed or that change the direction of text.
func clean(s string) string {
	if len(s) > 4*mostText {
		s = s[:4*mostText] // whole characters are cut below
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > mostText {
			b.WriteRune('…')
			break
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// A namer shows tenants.
type namer struct {
	plain bool
	key   []byte
}

// tenant returns the name to show for a tenant.
func (n *namer) tenant(name string) string {
	if name == "" || n.plain {
		return clean(name)
	}
	m := hmac.New(sha256.New, n.key)
	m.Write([]byte(name))
	return "tenant-" + hex.EncodeToString(m.Sum(nil)[:4])
}

// inWords returns a duration with two or three digits, as a person would say it. The bounds are
// where three digits round up to the next unit.
func inWords(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + inWords(-d)
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < 999_500*time.Nanosecond:
		return digits(float64(d)/1e3) + " µs"
	case d < 999_500*time.Microsecond:
		return digits(float64(d)/1e6) + " ms"
	case d < 2*time.Minute:
		return digits(d.Seconds()) + " s"
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	default:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
}

// digits returns a number with three digits, or with all digits before the point. It never has
// an exponent, which a reader would have to work out.
func digits(v float64) string {
	if v >= 999.5 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// many returns a number with its noun.
func many(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// verb returns the form of a verb for a number of things.
func verb(n int64, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
