package sqs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/internal/batch"
)

const (
	// senders is the number of batches of one kind at the same time.
	senders = 4
	// patience bounds a request beyond the time for which SQS itself waits.
	patience = 10 * time.Second
)

// A fetcher reads one queue. Requests for messages run in goroutines of their own, because
// none may be canceled. Fetch waits for the first that returns.
type fetcher struct {
	Config

	deletes *batch.Batcher[string]
	changes *batch.Batcher[change]
	dead    deadLetters
	news    chan struct{} // holds an element after a request has ended
	work    sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	ready    []*broker.Message
	err      error // of a request, for Fetch
	asked    int   // messages that the running requests may return
	running  int   // requests
	parallel int   // requests that may run at the same time
	leaving  bool  // no caller will take the results of the running requests
}

var _ broker.Fetcher = (*fetcher)(nil)

func newFetcher(c Config) *fetcher {
	f := &fetcher{Config: c, news: make(chan struct{}, 1), parallel: 1}
	f.deletes = &batch.Batcher[string]{Send: f.delete, Senders: senders, Most: most, Time: patience}
	f.changes = &batch.Batcher[change]{Send: f.change, Senders: senders, Most: most, Time: patience}
	f.dead.fetcher = f
	return f
}

// Fetch implements broker.Fetcher. While a request is under way, the messages that it may
// return count as asked for. So n may not become smaller by more than Fetch returns, and a
// broker.Source keeps to that.
func (f *fetcher) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	for {
		messages, done, err := f.step(ctx, n)
		if done {
			return messages, err
		}
		select {
		case <-f.news:
		case <-ctx.Done():
		}
	}
}

// step returns the results of Fetch and true, or false after it has made sure that requests are
// under way. An error is returned when no request is under way any more, so that no message
// waits during the delay that follows.
func (f *fetcher) step(ctx context.Context, n int) (messages []*broker.Message, done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = ctx.Err() != nil
	if f.running == 0 || f.leaving {
		err, f.err = f.err, nil
	}
	take := min(n, len(f.ready))
	messages, f.ready = f.ready[:take:take], f.ready[take:]
	if f.leaving || err != nil || take > 0 {
		return messages, true, err
	}
	if f.err == nil {
		f.startLocked(n)
	}
	return nil, false, nil
}

// startLocked starts requests for n messages in all. A request for few messages costs as
// much as one for ten, so it is made only if no other is under way.
func (f *fetcher) startLocked(n int) {
	for f.running < f.parallel {
		k := min(f.Batch, n-f.asked-len(f.ready))
		if k < 1 || k < f.Batch && f.running > 0 {
			return
		}
		f.running++
		f.asked += k
		f.work.Go(func() { f.receive(k) })
	}
}

// receive makes a request for k messages.
func (f *fetcher) receive(k int) {
	messages, err := f.request(k)
	f.mu.Lock()
	f.running--
	f.asked -= k
	switch {
	case err != nil:
		f.err, f.parallel = err, 1
	case len(messages) == 0:
		f.parallel = 1
	default:
		f.parallel = min(2*f.parallel, f.Receives)
	}
	late := f.leaving
	if !late {
		f.ready = append(f.ready, messages...)
	}
	f.mu.Unlock()
	if late {
		f.giveBack(messages)
		return
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// giveBack returns messages that came after the last Fetch. The ones for which this fails
// come back when their visibility timeout ends.
func (f *fetcher) giveBack(messages []*broker.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all sync.WaitGroup
	for _, m := range messages {
		all.Go(func() {
			if err := m.Nack(ctx, broker.Requeue()); err != nil {
				f.Source.Logger.Warn("sqs: cannot give back a message", "message", m.ID, "err", err)
			}
		})
	}
	all.Wait()
}

// request receives at most k messages. It has a deadline, for connections that are dead.
func (f *fetcher) request(k int) ([]*broker.Message, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Wait+patience)
	defer cancel()
	in := &awssqs.ReceiveMessageInput{
		QueueUrl:              &f.QueueURL,
		MaxNumberOfMessages:   int32(k),
		VisibilityTimeout:     wholeSeconds(f.Visibility),
		WaitTimeSeconds:       wholeSeconds(f.Wait),
		MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameMessageGroupId,
		},
	}
	var options []func(*awssqs.Options)
	if f.fifo() {
		in.ReceiveRequestAttemptId = aws.String(rand.Text()) // a retry returns the same messages
	} else {
		options = append(options, withoutRetry)
	}
	out, err := f.Client.ReceiveMessage(ctx, in, options...)
	if err != nil {
		return nil, f.explain(err)
	}
	messages := make([]*broker.Message, 0, len(out.Messages))
	for _, m := range out.Messages {
		messages = append(messages, f.message(m))
	}
	return messages, nil
}

// withoutRetry is for requests that may have hidden messages from others when they fail.
func withoutRetry(o *awssqs.Options) { o.Retryer = aws.NopRetryer{} }

func wholeSeconds(d time.Duration) int32 { return int32(d / time.Second) }

// Close implements broker.Fetcher. It waits for the requests that are under way. If ctx ends
// first, they go on, and give back the messages that they receive.
func (f *fetcher) Close(ctx context.Context) error {
	f.mu.Lock()
	f.leaving = true
	ready := f.ready
	f.ready = nil
	f.mu.Unlock()
	f.giveBack(ready)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.work.Wait()
		f.deletes.Wait()
		f.changes.Wait()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sqs: a request is still under way: %w", ctx.Err())
	}
}

// explain names the queue, and says whether another try can help.
func (f *fetcher) explain(err error) error {
	if isGone(err) {
		return fmt.Errorf("%w: sqs: the queue %s does not exist: %w", broker.ErrPermanent, f.QueueURL, err)
	}
	return fmt.Errorf("sqs: queue %s: %w", f.QueueURL, err)
}

// isGone reports whether err says that the queue does not exist.
func isGone(err error) bool {
	var gone *types.QueueDoesNotExist
	return errors.As(err, &gone) || hasCode(err, "NonExistentQueue", "QueueDoesNotExist")
}
