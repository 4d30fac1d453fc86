package refusal

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-go/weir/admit"
)

// The messages of refusals. serverPhrases are followed by the name of the gate, and
// clientPhrases contain it.
var (
	serverPhrases = [...]string{
		admit.QueueFull:        "the server is full",
		admit.Evicted:          "the server is full and another call took the place of this one",
		admit.DeadlineTooClose: "the server is full and would not answer before the call's deadline",
		admit.WaitedTooLong:    "the server is full and the call has waited for too long",
		admit.Draining:         "the server is shutting down",
		admit.OverShare:        "the caller's share of the server is used up",
		admit.OverQuota:        "the caller's quota is used up",
		admit.TooManyOpen:      "too many streams are open on the server",

		admit.MemoryPressure:    "the server is short of memory",
		admit.GCPressure:        "the server is short of memory and busy with collecting garbage",
		admit.ProcessorPressure: "the server is short of processors",
		admit.UnderPressure:     "the server is under pressure",
	}
	clientPhrases = [...]string{
		admit.QueueFull:        "this client's limit for %q is used up",
		admit.Evicted:          "this client's limit for %q is used up, and another call took the place of this one",
		admit.DeadlineTooClose: "this client's limit for %q is used up until after the call's deadline",
		admit.WaitedTooLong:    "this client's limit for %q is used up, and the call has waited for too long",
		admit.Draining:         "this client is shutting down its calls for %q",
		admit.OverShare:        "the caller's share of this client's limit for %q is used up",
		admit.OverQuota:        "the caller's quota at this client's limit for %q is used up",
		admit.TooManyOpen:      "this client has too many streams open for %q",

		admit.MemoryPressure:    "this client's limit for %q is closed: its process is short of memory",
		admit.GCPressure:        "this client's limit for %q is closed: its process is busy with collecting garbage",
		admit.ProcessorPressure: "this client's limit for %q is closed: its process is short of processors",
		admit.UnderPressure:     "this client's limit for %q is closed: its process is under pressure",
	}
)

const prefix = "weir: "

// serverText returns the message of a server's refusal, without advice.
func serverText(why admit.Reason, gate string) string {
	phrase := "the server refused the call: " + why.String()
	if int(why) < len(serverPhrases) {
		phrase = serverPhrases[why]
	}
	return fmt.Sprintf("%s%s (gate %q)", prefix, phrase, gate)
}

// advice returns the advice to the caller of a refused call.
func advice(r *admit.Refusal) string {
	if r.Reason == admit.Draining {
		return ": another server may take the call"
	}
	return ": retry in " + rounded(r.RetryAfter).String()
}

// clientText returns the message of a client's refusal.
func clientText(why admit.Reason, gate string) string {
	phrase := "this client's limit for %q refused the call: " + why.String()
	if int(why) < len(clientPhrases) {
		phrase = clientPhrases[why]
	}
	return prefix + fmt.Sprintf(phrase, gate)
}

// rounded returns a delay in the precision that people use: 1.2s, 640ms.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// longestLabel bounds the name of a gate on the wire, in bytes.
const longestLabel = 64

// label returns the name of a gate for the wire, as valid UTF-8 of at most longestLabel
// bytes.
func label(name string) string {
	name = strings.ToValidUTF8(name, "?")
	for len(name) > longestLabel {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name
}

// longestText bounds the message in which a refusal is searched for.
const longestText = 4 << 10

// textRefusal reads a refusal without details, as a tap sends it. gRPC may have put other
// words in front.
func textRefusal(text string) (Refusal, bool) {
	if len(text) > longestText {
		return Refusal{}, false
	}
	for why, phrase := range serverPhrases {
		_, rest, found := strings.Cut(text, prefix+phrase+" (gate ")
		if !found {
			continue
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return Refusal{}, false
		}
		gate, _ := strconv.Unquote(quoted)
		rest = rest[len(quoted):]
		if end, found := strings.CutPrefix(rest, ")"); !found || end != "" && end[0] != ':' {
			return Refusal{}, false
		}
		r := Refusal{Reason: admit.Reason(why).String(), Remote: true}
		if len(gate) <= longestLabel && isPrintable(gate) {
			r.Gate = gate
		}
		return r, true
	}
	return Refusal{}, false
}
