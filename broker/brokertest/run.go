package brokertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// A Check tests one promise.
type Check struct {
	// Name is the name of the subtest and the key of Broker.Without.
	Name string
	// Promise is the promise in words.
	Promise string

	workers int  // that share the queue
	expires bool // needs the shortest timeout of the broker
	alone   bool // disturbs other checks, or is disturbed by them
	run     func(*trial)
}

// Checks lists all checks in the order in which Run runs them.
func Checks() []Check { return slices.Clone(checks) }

// Run runs each check as a subtest of t. Most of them wait most of the time, so they are
// parallel tests, which end after Run has returned. Call Run before the test starts
// anything else, with Broker.Start as the only way to start a server. Run does not return
// in the process that a check starts as a consumer.
func Run(t *testing.T, b Broker) {
	t.Helper()
	consumeIfTold(t, b)
	if err := b.validate(); err != nil {
		t.Fatal(err)
	}
	server := b.Start(t)
	for _, c := range checks {
		t.Run(c.Name, func(t *testing.T) {
			if !c.alone && !b.Serial {
				t.Parallel()
			}
			if reason, without := b.Without[c.Name]; without {
				t.Skipf("skipped for this broker, %s: %s", c.Promise, reason)
			}
			if err := RunCheck(t, b, server, c.Name); err != nil {
				t.Errorf("%s: %v", c.Promise, err)
			}
		})
	}
}

// RunCheck runs the check of that name with a running server, and returns its failures. It
// uses t to log and to clean up. It is for tests that expect a failure. Use Run for all
// others.
func RunCheck(t testing.TB, b Broker, server Server, name string) error {
	t.Helper()
	consumeIfTold(t, b)
	i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		return fmt.Errorf("brokertest: there is no check named %q", name)
	}
	tr, err := newTrial(t, b, server, checks[i])
	if err != nil {
		return err
	}
	return tr.do()
}

// validate returns all mistakes in b.
func (b *Broker) validate() error {
	var bad []error
	if b.Start == nil {
		bad = append(bad, errors.New("brokertest: Start is nil"))
	}
	if b.Open == nil {
		bad = append(bad, errors.New("brokertest: Open is nil"))
	}
	for name, reason := range b.Without {
		if !slices.ContainsFunc(checks, func(c Check) bool { return c.Name == name }) {
			bad = append(bad, fmt.Errorf("brokertest: Without[%q] names no check", name))
		}
		if strings.TrimSpace(reason) == "" {
			bad = append(bad, fmt.Errorf("brokertest: Without[%q] has no reason", name))
		}
	}
	for name, n := range map[string]int64{
		"AckTimeout": int64(b.AckTimeout), "Patience": int64(b.Patience), "GiveBack": int64(b.GiveBack),
		"Slack": int64(b.Slack), "LargeBody": int64(b.LargeBody),
		"IdleRequests": int64(b.IdleRequests), "RestRequests": int64(b.RestRequests),
	} {
		if n < 0 {
			bad = append(bad, fmt.Errorf("brokertest: %s is negative", name))
		}
	}
	return errors.Join(bad...)
}

// withDefaults fills in the zero fields.
func (b Broker) withDefaults() Broker {
	setDefault(&b.Patience, 20*time.Second)
	setDefault(&b.GiveBack, 3*time.Second)
	setDefault(&b.LargeBody, 256<<10)
	setDefault(&b.IdleRequests, 20)
	return b
}

func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
