package sqs_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

// TestBatches acknowledges many messages at once.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add(numbers(100)...)
		f.entryErr = func(handle string) *types.BatchResultErrorEntry {
			if !strings.HasPrefix(handle, "13/") {
				return nil
			}
			return &types.BatchResultErrorEntry{Code: new("ReceiptHandleIsInvalid"), Message: new("no"), SenderFault: true}
		}
		messages := take(t, f.open(t, nil), 100)
		var work sync.WaitGroup
		for _, m := range messages {
			work.Go(func() {
				if err := m.Ack(t.Context()); (err != nil) != (string(m.Body) == "13") || err != nil && !errors.Is(err, broker.ErrSettled) {
					t.Errorf("Ack of %q: got %v, want ErrSettled for 13 alone", m.Body, err)
				}
			})
		}
		work.Wait()
		if n := f.left(); n != 1 {
			t.Errorf("got %d messages left, want one", n)
		}
		if len(f.seen().deletes) > 16 || slices.Max(f.seen().deletes) > 10 {
			t.Errorf("got batches of %v, want at most 10 in each, and few", f.seen().deletes)
		}
	})
}

// TestAckAlone checks that an acknowledgement does not wait for others.
func TestAckAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("a")
		m := take(t, f.open(t, nil), 1)[0]
		began := time.Now()
		do(t, m.Ack(t.Context()))
		if took := time.Since(began); took != f.latency {
			t.Errorf("Ack took %v, want %v, the time of one request", took, f.latency)
		}
	})
}

// TestSettlementFails checks what the answers of SQS mean for a settlement.
func TestSettlementFails(t *testing.T) {
	entry := func(code, text string, senderFault bool) *types.BatchResultErrorEntry {
		return &types.BatchResultErrorEntry{Code: &code, Message: &text, SenderFault: senderFault}
	}
	for name, c := range map[string]struct {
		batch error
		entry *types.BatchResultErrorEntry
		want  error // nil if another try succeeds
	}{
		"connection":       {batch: errors.New("connection reset")},
		"server error":     {batch: apiError("InternalError", smithy.FaultServer)},
		"throttled":        {batch: apiError("RequestThrottled", smithy.FaultClient)},
		"entry, server":    {entry: entry("InternalError", "no", false)},
		"no permission":    {batch: apiError("AccessDeniedException", smithy.FaultClient), want: &smithy.OperationError{}},
		"stale":            {entry: entry("ReceiptHandleIsInvalid", "no", true), want: broker.ErrSettled},
		"expired":          {entry: entry("InvalidParameterValue", "The receipt handle has expired.", true), want: broker.ErrSettled},
		"not in flight":    {entry: entry("AWS.SimpleQueueService.MessageNotInflight", "no", true), want: broker.ErrSettled},
		"queue is deleted": {batch: &types.QueueDoesNotExist{}, want: broker.ErrSettled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.add("a")
				m := take(t, f.open(t, nil), 1)[0]
				failures := 2
				fails := func() bool {
					failures--
					return failures >= 0
				}
				f.batchErr = func() error {
					if c.batch != nil && fails() {
						return c.batch
					}
					return nil
				}
				f.entryErr = func(string) *types.BatchResultErrorEntry {
					if c.entry != nil && fails() {
						e := *c.entry
						return &e
					}
					return nil
				}
				err := m.Ack(t.Context())
				var operation *smithy.OperationError
				switch {
				case c.want == nil && (err != nil || f.left() != 0):
					t.Errorf("Ack: got %v, %d messages left, want success after two failures", err, f.left())
				case errors.Is(c.want, broker.ErrSettled) && !errors.Is(err, broker.ErrSettled):
					t.Errorf("Ack: got %v, want ErrSettled", err)
				case c.want != nil && !errors.Is(c.want, broker.ErrSettled):
					if errors.Is(err, broker.ErrSettled) || !errors.As(err, &operation) {
						t.Errorf("Ack: got %v, want the answer of SQS, and another try allowed", err)
					}
					failures = 0
					do(t, m.Ack(t.Context()))
				}
			})
		})
	}
}

// TestAckEndsWithContext checks that a settlement whose caller has given up is not sent
// later, behind the back of the next one.
func TestAckEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("a")
		m := take(t, f.open(t, nil), 1)[0]
		broken := true
		f.batchErr = func() error {
			if broken {
				return errors.New("connection reset")
			}
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := m.Ack(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection reset") || !strings.Contains(err.Error(), "/jobs") {
			t.Errorf("Ack: got %v, want %v, the queue and the last try", err, context.DeadlineExceeded)
		}
		f.locked(func() { broken = false })
		do(t, m.Nack(t.Context(), broker.Requeue()))
		time.Sleep(time.Minute)
		if f.left() != 1 || f.hidden() != 0 {
			t.Errorf("got %d messages, %d in flight, want the requeued one", f.left(), f.hidden())
		}
	})
}

// TestExtend checks that held messages stay hidden, from their receipt on.
func TestExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("a")
		source := f.open(t, func(c *sqs.Config) { c.Visibility = 10 * time.Second })
		source.Request(2)
		m := next(t, source)
		began := time.Now()
		for range 60 {
			time.Sleep(time.Second)
			if f.hidden() != 1 {
				t.Fatalf("after %v others can see the message", time.Since(began))
			}
		}
		if first := f.seen().changedAt[0].Sub(began); first < 4*time.Second || first > 6*time.Second || f.seen().changes[0] != 10 {
			t.Errorf("got the first change after %v, to %d s, want 5 s and 10 s", first, f.seen().changes[0])
		}
		do(t, m.Ack(t.Context()))
	})
}

func TestRequeue(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.add("a")
			source := f.open(t, func(c *sqs.Config) { c.RequeueDelay = delay })
			do(t, take(t, source, 1)[0].Nack(t.Context(), broker.Requeue()))
			began := time.Now()
			m := take(t, source, 1)[0]
			if took := time.Since(began); took < delay || took > delay+time.Second || m.Attempt != 2 {
				t.Errorf("got attempt %d after %v, want attempt 2 after %v", m.Attempt, took, delay)
			}
		})
	}
}

// TestDeadLetter checks where dead letters go and what they say.
func TestDeadLetter(t *testing.T) {
	const policy = `{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:77:jobs-dead","maxReceiveCount":5}`
	for name, c := range map[string]struct {
		url, policy string
		message     stored
		reason      string
		wantURL     string
		wantReason  string
		wantErr     string
	}{
		"configured":       {url: "https://sqs/1/dead", policy: policy, reason: "bad", wantURL: "https://sqs/1/dead", wantReason: "bad"},
		"of the policy":    {policy: policy, reason: "bad", wantURL: "https://sqs/77/jobs-dead", wantReason: "bad"},
		"none":             {reason: "bad", wantErr: "no redrive policy"},
		"broken policy":    {policy: `{"deadLetterTargetArn":"x"}`, reason: "bad", wantErr: "want the ARN"},
		"no JSON":          {policy: `x`, reason: "bad", wantErr: "redrive policy"},
		"no reason":        {policy: policy, wantURL: "https://sqs/77/jobs-dead", wantReason: "no reason was given"},
		"forbidden letter": {policy: policy, reason: "a\uFFFFb", wantURL: "https://sqs/77/jobs-dead", wantReason: "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.addMessage(&stored{body: "b", group: "g", attributes: map[string]types.MessageAttributeValue{
					"text": attribute("String", "t"), "binary": {DataType: new("Binary"), BinaryValue: []byte{1}},
				}})
				if c.policy != "" {
					f.attributes["RedrivePolicy"] = c.policy
				}
				m := take(t, f.open(t, func(conf *sqs.Config) { conf.DeadLetterURL = c.url }), 1)[0]
				err := m.Nack(t.Context(), broker.DeadLetter(c.reason))
				if c.wantErr != "" {
					if err == nil || !strings.Contains(err.Error(), c.wantErr) || errors.Is(err, broker.ErrSettled) || f.left() != 1 {
						t.Errorf("got %v, %d messages left, want an error that says %q and leaves the message", err, f.left(), c.wantErr)
					}
					return
				}
				if err != nil || len(f.seen().sent) != 1 || f.left() != 0 {
					t.Fatalf("got %v, %d dead letters, %d messages left, want one dead letter", err, len(f.seen().sent), f.left())
				}
				in := f.seen().sent[0]
				if *in.QueueUrl != c.wantURL || *in.MessageBody != "b" || *in.MessageGroupId != "g" || *in.MessageAttributes["weir-reason"].StringValue != c.wantReason {
					t.Errorf("got a dead letter to %s with group %s, attributes %v, want %s, g, reason %q",
						*in.QueueUrl, *in.MessageGroupId, in.MessageAttributes, c.wantURL, c.wantReason)
				}
				names := slices.Sorted(maps.Keys(in.MessageAttributes))
				if !slices.Equal(names, []string{"binary", "text", "weir-attempt", "weir-message-id", "weir-reason"}) {
					t.Errorf("got attributes %q, want those of the message and three more", names)
				}
			})
		})
	}
}

// TestDeadLetterWithFullAttributes sends a message that has no room for the reason.
func TestDeadLetterWithFullAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		attributes := map[string]types.MessageAttributeValue{}
		for _, name := range numbers(10) {
			attributes[name] = attribute("String", "x")
		}
		f.addMessage(&stored{body: "b", attributes: attributes})
		f.sendErr = func(in *awssqs.SendMessageInput) error {
			if len(in.MessageAttributes) > 10 {
				return apiError("InvalidParameterValue", smithy.FaultClient)
			}
			return nil
		}
		m := take(t, f.open(t, func(c *sqs.Config) { c.DeadLetterURL = "https://sqs/1/dead" }), 1)[0]
		do(t, m.Nack(t.Context(), broker.DeadLetter("bad")))
		if len(f.seen().sent) != 1 || len(f.seen().sent[0].MessageAttributes) != 10 || f.left() != 0 {
			t.Errorf("got %d dead letters, %d messages left, want one with its own attributes", len(f.seen().sent), f.left())
		}
	})
}

// TestDeadLetterOnce fails the deletion after the dead letter was sent.
func TestDeadLetterOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("a")
		f.batchErr = func() error { return apiError("AccessDeniedException", smithy.FaultClient) }
		m := take(t, f.open(t, func(c *sqs.Config) {
			c.QueueURL, c.DeadLetterURL = "https://sqs/1/jobs.fifo", "https://sqs/1/dead.fifo"
		}), 1)[0]
		if err := m.Nack(t.Context(), broker.DeadLetter("bad")); err == nil || errors.Is(err, broker.ErrSettled) {
			t.Errorf("got %v, want an error that allows another try", err)
		}
		f.locked(func() { f.batchErr = nil })
		do(t, m.Nack(t.Context(), broker.DeadLetter("bad")))
		if len(f.seen().sent) != 1 || f.left() != 0 || *f.seen().sent[0].MessageDeduplicationId != "id-a" {
			t.Errorf("got %d dead letters, %d messages left, want one, deduplicated by the message", len(f.seen().sent), f.left())
		}
	})
}

// TestDeadLetterQueueIsGone checks that a missing queue for dead letters loses nothing.
func TestDeadLetterQueueIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("a")
		f.sendErr = func(*awssqs.SendMessageInput) error { return &types.QueueDoesNotExist{} }
		m := take(t, f.open(t, func(c *sqs.Config) { c.DeadLetterURL = "https://sqs/1/dead" }), 1)[0]
		err := m.Nack(t.Context(), broker.DeadLetter("bad"))
		if err == nil || errors.Is(err, broker.ErrSettled) || f.left() != 1 {
			t.Errorf("got %v, %d messages left, want an error that leaves the message", err, f.left())
		}
	})
}
