package sqs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/weir-go/weir/broker"
)

// A receipt settles one message.
type receipt struct {
	f        *fetcher
	message  types.Message
	setAside atomic.Bool // the dead letter was sent
}

var _ broker.Settler = (*receipt)(nil)

// message returns a received message.
func (f *fetcher) message(m types.Message) *broker.Message {
	out := broker.Message{
		ID:   aws.ToString(m.MessageId),
		Key:  m.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)],
		Body: []byte(aws.ToString(m.Body)),
	}
	out.Attempt, _ = strconv.Atoi(m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)])
	for name, v := range m.MessageAttributes {
		if v.StringValue == nil {
			continue
		}
		if out.Attributes == nil {
			out.Attributes = map[string]string{}
		}
		out.Attributes[name] = *v.StringValue
	}
	return broker.NewMessage(out, &receipt{f: f, message: m})
}

// Ack implements broker.Settler. It returns ErrSettled if SQS does not know the receipt any
// more. SQS may also accept an old receipt and deliver the message again nevertheless.
func (r *receipt) Ack(ctx context.Context) error {
	return r.outcome(retry(ctx, func() error {
		return r.f.deletes.Do(ctx, aws.ToString(r.message.ReceiptHandle))
	}))
}

// Requeue implements broker.Settler.
func (r *receipt) Requeue(ctx context.Context) error {
	delay := r.f.RequeueDelay
	r.f.mu.Lock()
	if r.f.leaving {
		delay = 0
	}
	r.f.mu.Unlock()
	return r.hide(ctx, delay)
}

// Extend implements broker.Settler. SQS hides a message for 12 hours in all at most.
func (r *receipt) Extend(ctx context.Context) error { return r.hide(ctx, r.f.Visibility) }

// hide has SQS deliver the message again after d.
func (r *receipt) hide(ctx context.Context, d time.Duration) error {
	return r.outcome(retry(ctx, func() error {
		return r.f.changes.Do(ctx, change{handle: aws.ToString(r.message.ReceiptHandle), seconds: wholeSeconds(d)})
	}))
}

// DeadLetter implements broker.Settler. The dead letter is sent before the message is
// deleted, so that it may be there twice, but is never lost.
func (r *receipt) DeadLetter(ctx context.Context, reason string) error {
	if !r.setAside.Load() {
		err := retry(ctx, func() error { return r.f.dead.send(ctx, r.message, reason) })
		if err != nil {
			return r.wrap(fmt.Errorf("dead letter: %w", err))
		}
		r.setAside.Store(true)
	}
	return r.Ack(ctx)
}

// Delays between two tries of a settlement. The tries of the client itself come before.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = 2 * time.Second
)

// retry calls send until SQS answers or ctx ends.
func retry(ctx context.Context, send func() error) error {
	var last error // before the end of ctx
	for delay := minRetry; ; delay = min(2*delay, maxRetry) {
		err := send()
		if err == nil || isAnswer(err) {
			return err
		}
		if ctx.Err() == nil {
			last = err
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return errors.Join(ctx.Err(), last)
		case <-timer.C:
		}
	}
}

// outcome returns the error of a settlement. It is ErrSettled if the message is not this
// receipt's any more, or if the queue was deleted.
func (r *receipt) outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case isStale(err), isGone(err):
		return r.wrap(fmt.Errorf("%w: %w", broker.ErrSettled, err))
	default:
		return r.wrap(err)
	}
}

// wrap says which message an error is about.
func (r *receipt) wrap(err error) error {
	return fmt.Errorf("sqs: message %s of queue %s: %w", aws.ToString(r.message.MessageId), r.f.QueueURL, err)
}

// A change sets the visibility timeout of a message.
type change struct {
	handle  string
	seconds int32
}

// delete sends the receipts of a batch of consumed messages.
func (f *fetcher) delete(ctx context.Context, handles []string) []error {
	in := &awssqs.DeleteMessageBatchInput{QueueUrl: &f.QueueURL}
	for i := range handles {
		in.Entries = append(in.Entries, types.DeleteMessageBatchRequestEntry{Id: batchID(i), ReceiptHandle: &handles[i]})
	}
	out, err := f.Client.DeleteMessageBatch(ctx, in)
	if err != nil {
		return results(len(handles), nil, nil, err)
	}
	var ok []*string
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return results(len(handles), ok, out.Failed, nil)
}

// change sends a batch of changes of the visibility timeout.
func (f *fetcher) change(ctx context.Context, changes []change) []error {
	in := &awssqs.ChangeMessageVisibilityBatchInput{QueueUrl: &f.QueueURL}
	for i, c := range changes {
		in.Entries = append(in.Entries, types.ChangeMessageVisibilityBatchRequestEntry{
			Id: batchID(i), ReceiptHandle: &changes[i].handle, VisibilityTimeout: c.seconds,
		})
	}
	out, err := f.Client.ChangeMessageVisibilityBatch(ctx, in)
	if err != nil {
		return results(len(changes), nil, nil, err)
	}
	var ok []*string
	for _, s := range out.Successful {
		ok = append(ok, s.Id)
	}
	return results(len(changes), ok, out.Failed, nil)
}

// batchID is the name of the entry with the index i in a batch.
func batchID(i int) *string { return aws.String(strconv.Itoa(i)) }

// results returns the error of each entry of a batch. An entry about which SQS says nothing
// has an error too.
func results(n int, ok []*string, failed []types.BatchResultErrorEntry, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
		if err == nil {
			errs[i] = errNoResult
		}
	}
	set := func(id *string, err error) {
		if i, errID := strconv.Atoi(aws.ToString(id)); errID == nil && i >= 0 && i < n {
			errs[i] = err
		}
	}
	for _, id := range ok {
		set(id, nil)
	}
	for _, e := range failed {
		fault := smithy.FaultServer
		if e.SenderFault {
			fault = smithy.FaultClient
		}
		set(e.Id, &smithy.GenericAPIError{Code: aws.ToString(e.Code), Message: aws.ToString(e.Message), Fault: fault})
	}
	return errs
}

var errNoResult = errors.New("sqs: got no result for an entry of a batch")

// isStale reports whether SQS does not know the receipt, or has delivered the message again.
func isStale(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	if hasCode(err, "ReceiptHandleIsInvalid", "MessageNotInflight") {
		return true
	}
	text := api.ErrorMessage()
	return hasCode(err, "InvalidParameterValue") &&
		(strings.Contains(text, "expired") || strings.Contains(text, "not available for visibility timeout change"))
}

// isAnswer reports whether another try would get the same answer.
func isAnswer(err error) bool {
	var own answer
	var api smithy.APIError
	return errors.As(err, &own) || errors.As(err, &api) && api.ErrorFault() != smithy.FaultServer &&
		!awsretry.IsErrorThrottles(awsretry.DefaultThrottles).IsErrorThrottle(err).Bool()
}

// hasCode reports whether the code of err ends in one of the given ones. Some answers have
// the prefix "AWS.SimpleQueueService.".
func hasCode(err error, codes ...string) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	for _, c := range codes {
		if code := api.ErrorCode(); code == c || strings.HasSuffix(code, "."+c) {
			return true
		}
	}
	return false
}
