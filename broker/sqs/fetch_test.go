package sqs_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

// TestNoDemand checks that nothing is asked for without demand, and one request at a time
// while the queue is empty.
func TestNoDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		source := f.open(t, nil)
		time.Sleep(time.Hour)
		if n := len(f.seen().receives); n != 0 {
			t.Errorf("without demand: got %d requests, want none", n)
		}
		source.Request(64)
		time.Sleep(time.Minute)
		if n := len(f.seen().receives); n < 19 || n > 21 || f.seen().maxRunning != 1 {
			t.Errorf("64 requested, empty queue: got %d requests in a minute, %d at once, want 20, one at a time, each for 3 s", n, f.seen().maxRunning)
		}
		f.add(numbers(64)...)
		for range 64 {
			next(t, source)
		}
		n := len(f.seen().receives)
		time.Sleep(10 * time.Second)
		if got := len(f.seen().receives); got != n {
			t.Errorf("with all demand used: got %d more requests, want none", got-n)
		}
	})
}

// TestDemand moves the demand up and down, and counts at the queue.
func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add(numbers(500)...)
		source := f.open(t, nil)
		requested, settled := 0, 0
		for round := range 60 {
			demand := min([]int{1, 3, 10, 11, 25, 64}[round%6], f.left())
			source.Request(demand)
			requested += demand
			for range demand {
				m := next(t, source)
				if n := f.hidden(); n > requested-settled {
					t.Fatalf("got %d messages in flight, want at most %d", n, requested-settled)
				}
				if round%5 == 4 {
					do(t, m.Nack(t.Context(), broker.Requeue()))
				} else {
					do(t, m.Ack(t.Context()))
				}
				settled++
			}
			if f.left() == 0 {
				break
			}
		}
		for _, in := range f.seen().receives {
			if in.MaxNumberOfMessages < 1 || in.MaxNumberOfMessages > 10 {
				t.Errorf("got a request for %d messages, want 1 to 10", in.MaxNumberOfMessages)
			}
		}
	})
}

// TestParallel checks that a full queue is read with several requests at once, and that a
// small demand is not cut into more requests.
func TestParallel(t *testing.T) {
	for name, c := range map[string]struct {
		demand, receives, wantParallel int
		wantRequests                   int // at most, for 1,000 messages
	}{
		"large demand":        {demand: 200, wantParallel: 8, wantRequests: 200},
		"large demand, bound": {demand: 200, receives: 2, wantParallel: 2, wantRequests: 200},
		"small demand":        {demand: 9, wantParallel: 1, wantRequests: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.add(numbers(1000)...)
				source := f.open(t, func(conf *sqs.Config) { conf.Receives = c.receives })
				source.Request(c.demand)
				var work sync.WaitGroup
				for range 1000 {
					m := next(t, source)
					work.Go(func() {
						time.Sleep(20 * time.Millisecond)
						if err := m.Ack(t.Context()); err != nil {
							t.Error(err)
						}
						source.Request(1)
					})
				}
				work.Wait()
				if f.seen().maxRunning != c.wantParallel || len(f.seen().receives) > c.wantRequests || f.seen().maxHidden > c.demand {
					t.Errorf("got %d requests, %d at once, %d messages in flight, want at most %d, %d at once, at most %d",
						len(f.seen().receives), f.seen().maxRunning, f.seen().maxHidden, c.wantRequests, c.wantParallel, c.demand)
				}
			})
		})
	}
}

// TestFullRequests checks that a rest of the demand waits for a request of its own.
func TestFullRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add(numbers(100)...)
		source := f.open(t, nil)
		take(t, source, 10)
		take(t, source, 15)
		var sizes []int32
		for _, in := range f.seen().receives {
			sizes = append(sizes, in.MaxNumberOfMessages)
		}
		if !slices.Equal(sizes, []int32{10, 10, 5}) || f.seen().maxRunning != 1 {
			t.Errorf("got requests for %v messages, %d at once, want 10, 10 and 5, one at a time", sizes, f.seen().maxRunning)
		}
	})
}

// TestCloseDuringReceive closes a source while SQS holds its request. A message that comes
// then must be visible again at once, and the request must not be canceled.
func TestCloseDuringReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		source := f.open(t, nil)
		source.Request(5)
		time.Sleep(time.Second)
		closed := make(chan error, 1)
		go func() { closed <- source.Close(t.Context()) }()
		synctest.Wait()
		f.add("late")
		do(t, <-closed)
		if f.seen().canceled != 0 || f.hidden() != 0 || f.left() != 1 {
			t.Errorf("got %d canceled requests, %d of %d messages in flight, want none, 0 of 1", f.seen().canceled, f.hidden(), f.left())
		}
	})
}

// TestCloseWaitsForHandlers gives back a late message at once, although a handler runs on.
func TestCloseWaitsForHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("slow")
		source := f.open(t, func(c *sqs.Config) { c.RequeueDelay = time.Minute })
		m := take(t, source, 1)[0]
		source.Request(1)
		time.Sleep(time.Second)
		closed := make(chan error, 1)
		go func() { closed <- source.Close(t.Context()) }()
		synctest.Wait()
		f.add("late")
		time.Sleep(100 * time.Millisecond)
		if n := f.hidden(); n != 1 || f.seen().changes[len(f.seen().changes)-1] != 0 {
			t.Errorf("got %d messages in flight, changes %v, want only the handler's, and 0 s for the late one", n, f.seen().changes)
		}
		do(t, m.Ack(t.Context()))
		do(t, <-closed)
	})
}

// TestCloseGivesUp closes a source whose request SQS holds longer than a source waits. The
// request goes on, and its message is given back.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		source := f.open(t, func(c *sqs.Config) { c.Wait = 20 * time.Second })
		source.Request(1)
		time.Sleep(time.Second)
		if err := source.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "still under way") {
			t.Errorf("Close: got %v, want it to say that a request is under way", err)
		}
		f.add("late")
		time.Sleep(time.Second)
		if f.seen().canceled != 0 || f.hidden() != 0 || f.left() != 1 {
			t.Errorf("got %d canceled requests, %d of %d messages in flight, want none, 0 of 1", f.seen().canceled, f.hidden(), f.left())
		}
	})
}

// TestReceiveFails checks errors of requests for messages.
func TestReceiveFails(t *testing.T) {
	for name, c := range map[string]struct {
		err       error
		permanent bool
	}{
		"over the limit":    {err: apiError("OverLimit", smithy.FaultClient)},
		"throttled":         {err: apiError("RequestThrottled", smithy.FaultClient)},
		"no permission":     {err: apiError("AccessDeniedException", smithy.FaultClient)},
		"server error":      {err: apiError("InternalError", smithy.FaultServer)},
		"connection":        {err: errors.New("connection reset")},
		"deleted":           {err: &types.QueueDoesNotExist{}, permanent: true},
		"deleted, old code": {err: apiError("AWS.SimpleQueueService.NonExistentQueue", smithy.FaultClient), permanent: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.add("a", "b")
				failures := 3
				f.receiveErr = func() error {
					f.mu.Lock()
					defer f.mu.Unlock()
					if failures == 0 {
						return nil
					}
					failures--
					return c.err
				}
				source := f.open(t, nil)
				source.Request(2)
				m, err := source.Next(t.Context())
				if !c.permanent {
					if err != nil || m == nil {
						t.Fatalf("got %v, want a message after three failures", err)
					}
					next(t, source)
					return
				}
				if !errors.Is(err, broker.ErrPermanent) || !strings.Contains(err.Error(), "https://sqs/1/jobs") {
					t.Errorf("got %v, want ErrPermanent with the name of the queue", err)
				}
			})
		})
	}
}

// TestFailureBesideOthers fails one of several requests at once. The messages of the others
// must not wait for the delay after an error.
func TestFailureBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add(numbers(200)...)
		calls := 0
		f.receiveErr = func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if calls++; calls%3 == 0 {
				return errors.New("connection reset")
			}
			return nil
		}
		source := f.open(t, nil)
		source.Request(200)
		for range 200 {
			m := next(t, source)
			if waited := f.sinceReceipt(string(m.Body)); waited > time.Millisecond {
				t.Fatalf("message %s has waited for %v, want no wait", m.Body, waited)
			}
		}
	})
}

// TestFIFO checks that a FIFO queue is read one message at a time, with several requests.
func TestFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		for _, g := range numbers(20) {
			f.addMessage(&stored{body: "of " + g, group: g})
		}
		source := f.open(t, func(c *sqs.Config) { c.QueueURL = "https://sqs/1/jobs.fifo" })
		var keys []string
		for _, m := range take(t, source, 20) {
			keys = append(keys, m.Key)
		}
		slices.Sort(keys)
		if len(slices.Compact(keys)) != 20 || f.seen().maxRunning < 4 {
			t.Errorf("got keys %q, %d requests at once, want 20 keys and several requests", keys, f.seen().maxRunning)
		}
		ids := map[string]bool{}
		for _, in := range f.seen().receives {
			if in.MaxNumberOfMessages != 1 || in.ReceiveRequestAttemptId == nil || ids[*in.ReceiveRequestAttemptId] {
				t.Errorf("got a request %+v, want one message and an attempt ID of its own", in)
				continue
			}
			ids[*in.ReceiveRequestAttemptId] = true
		}
	})
}

// TestOrder requeues messages of a FIFO queue. No later message of the same group may
// overtake them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		const n = 6
		for _, i := range numbers(n) {
			f.addMessage(&stored{body: i + "a", group: "a"})
			f.addMessage(&stored{body: i + "b", group: "b"})
		}
		source := f.open(t, func(c *sqs.Config) { c.QueueURL = "https://sqs/1/jobs.fifo" })
		source.Request(8)
		done := map[string]int{}
		for done["a"]+done["b"] < 2*n {
			m := next(t, source)
			source.Request(1)
			if got, want := string(m.Body), numbers(n)[done[m.Key]]+m.Key; got != want {
				t.Fatalf("key %s: got %s, want %s", m.Key, got, want)
			}
			if m.Attempt < 3 {
				do(t, m.Nack(t.Context(), broker.Requeue()))
				continue
			}
			do(t, m.Ack(t.Context()))
			done[m.Key]++
		}
	})
}

func TestMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.addMessage(&stored{body: "b", group: "g", receives: 2, attributes: map[string]types.MessageAttributeValue{
			"text":   attribute("String", "t"),
			"number": attribute("Number", "7"),
			"binary": {DataType: new("Binary"), BinaryValue: []byte{1}},
		}})
		m := take(t, f.open(t, nil), 1)[0]
		if m.ID != "id-b" || m.Key != "g" || string(m.Body) != "b" || m.Attempt != 3 {
			t.Errorf("got ID %q, key %q, body %q, attempt %d, want id-b, g, b, 3", m.ID, m.Key, m.Body, m.Attempt)
		}
		if len(m.Attributes) != 2 || m.Attributes["text"] != "t" || m.Attributes["number"] != "7" {
			t.Errorf("got attributes %q, want text and number", m.Attributes)
		}
	})
}

func attribute(kind, value string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &kind, StringValue: &value}
}

func TestConfig(t *testing.T) {
	good := sqs.Config{Client: newFake(), QueueURL: "https://sqs/1/jobs"}
	for name, c := range map[string]struct {
		change func(*sqs.Config)
		want   []string
	}{
		"nothing is set":     {func(c *sqs.Config) { *c = sqs.Config{} }, []string{"Client: got none, want a client of SQS", "QueueURL: got none, want the address of the queue"}},
		"visibility":         {func(c *sqs.Config) { c.Visibility = 1500 * time.Millisecond }, []string{"Visibility: got 1.5s, want whole seconds"}},
		"long visibility":    {func(c *sqs.Config) { c.Visibility = 13 * time.Hour }, []string{"Visibility: got 13h0m0s, want whole seconds from 1s to 12h"}},
		"wait":               {func(c *sqs.Config) { c.Wait = 21 * time.Second }, []string{"Wait: got 21s, want whole seconds from 1s to 20s"}},
		"negative":           {func(c *sqs.Config) { c.Receives, c.Batch, c.RequeueDelay = -1, 11, -time.Second }, []string{"Receives: got -1, want more than 0", "Batch: got 11, want 1 to 10", "RequeueDelay: got -1s, want whole seconds from 0 to 12h"}},
		"extended too late":  {func(c *sqs.Config) { c.Source.ExtendEvery = 30 * time.Second }, []string{"Source: ExtendEvery: got 30s, want less than Visibility, 30s"}},
		"itself":             {func(c *sqs.Config) { c.DeadLetterURL = c.QueueURL }, []string{`DeadLetterURL: got "https://sqs/1/jobs", which is QueueURL, want another queue`}},
		"FIFO and standard":  {func(c *sqs.Config) { c.DeadLetterURL = "https://sqs/1/dead.fifo" }, []string{"both FIFO or both standard"}},
		"standard and FIFO":  {func(c *sqs.Config) { c.QueueURL += ".fifo"; c.DeadLetterURL = "https://sqs/1/dead" }, []string{"both FIFO or both standard"}},
		"of the core":        {func(c *sqs.Config) { c.Source.MaxHold = -1 }, []string{"Source: MaxHold: got -1ns, want more than 0, or 0 for 1h0m0s"}},
		"typed nil is wrong": {func(c *sqs.Config) { c.Client = nil }, []string{"Client: got none"}},
	} {
		t.Run(name, func(t *testing.T) {
			conf := good
			c.change(&conf)
			_, err := sqs.Open(conf)
			if err == nil {
				t.Fatal("Open: got no error, want one")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open: got %q, want it to say %q", err, want)
				}
			}
			if !errors.Is(err, sqs.ErrConfig) {
				t.Errorf("Open: got %v, want ErrConfig", err)
			}
		})
	}
	source, err := sqs.Open(good)
	do(t, err)
	do(t, source.Close(context.Background()))
}
