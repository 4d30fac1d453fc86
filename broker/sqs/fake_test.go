package sqs_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/sqs"
)

// A fake is a queue of SQS in memory, in the time of a bubble. Each request takes latency.
type fake struct {
	latency time.Duration

	mu       sync.Mutex // guards the fields below
	messages []*stored
	serial   int
	changed  chan struct{} // closed when a message becomes visible

	log        record
	running    int
	attributes map[string]string // of the queue

	receiveErr func() error
	batchErr   func() error
	entryErr   func(handle string) *types.BatchResultErrorEntry
	sendErr    func(*awssqs.SendMessageInput) error
}

// A record is what a fake has seen.
type record struct {
	receives   []*awssqs.ReceiveMessageInput
	maxRunning int
	canceled   int
	maxHidden  int
	deletes    []int // sizes of batches
	changes    []int32
	changedAt  []time.Time
	sent       []*awssqs.SendMessageInput
}

// seen returns a copy of the record.
func (f *fake) seen() record {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.log
	r.receives, r.deletes, r.sent = slices.Clone(r.receives), slices.Clone(r.deletes), slices.Clone(r.sent)
	r.changes, r.changedAt = slices.Clone(r.changes), slices.Clone(r.changedAt)
	return r
}

// A stored message is hidden until visible. Its receipt handle changes with each receive.
type stored struct {
	body, handle, group string
	attributes          map[string]types.MessageAttributeValue
	receives            int
	received, visible   time.Time
}

var _ sqs.API = (*fake)(nil)

func newFake() *fake {
	return &fake{latency: 5 * time.Millisecond, changed: make(chan struct{}), attributes: map[string]string{}}
}

func (f *fake) add(bodies ...string) {
	for _, body := range bodies {
		f.addMessage(&stored{body: body})
	}
}

func (f *fake) addMessage(m *stored) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.messages = append(f.messages, m)
	f.wakeLocked()
}

func (f *fake) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// hidden returns how many messages are in flight, in the words of SQS.
func (f *fake) hidden() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hiddenLocked()
}

func (f *fake) hiddenLocked() (n int) {
	for _, m := range f.messages {
		if m.visible.After(time.Now()) {
			n++
		}
	}
	return n
}

func (f *fake) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.messages)
}

// sinceReceipt returns how long ago a message was received.
func (f *fake) sinceReceipt(body string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.messages, func(m *stored) bool { return m.body == body })
	return time.Since(f.messages[i].received)
}

// locked runs look with the lock held.
func (f *fake) locked(look func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	look()
}

func (f *fake) ReceiveMessage(ctx context.Context, in *awssqs.ReceiveMessageInput, _ ...func(*awssqs.Options)) (*awssqs.ReceiveMessageOutput, error) {
	f.mu.Lock()
	f.log.receives = append(f.log.receives, in)
	f.running++
	f.log.maxRunning = max(f.log.maxRunning, f.running)
	f.mu.Unlock()
	defer f.locked(func() { f.running-- })
	if f.receiveErr != nil {
		if err := f.receiveErr(); err != nil {
			return nil, err
		}
	}
	time.Sleep(f.latency)
	end := time.After(time.Duration(in.WaitTimeSeconds) * time.Second)
	for {
		out, changed := f.receive(in)
		if len(out.Messages) > 0 {
			return out, nil
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond): // a visibility timeout may have ended
		case <-end:
			return out, nil
		case <-ctx.Done():
			f.locked(func() { f.log.canceled++ })
			return nil, ctx.Err()
		}
	}
}

func (f *fake) receive(in *awssqs.ReceiveMessageInput) (*awssqs.ReceiveMessageOutput, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out awssqs.ReceiveMessageOutput
	locked := map[string]bool{} // groups with a message in flight before this request
	for _, m := range f.messages {
		locked[m.group] = locked[m.group] || m.group != "" && m.visible.After(time.Now())
	}
	for _, m := range f.messages {
		if len(out.Messages) == int(in.MaxNumberOfMessages) {
			break
		}
		if m.visible.After(time.Now()) || locked[m.group] {
			continue
		}
		f.serial++
		m.receives++
		m.handle = fmt.Sprintf("%s/%d", m.body, f.serial)
		m.received = time.Now()
		m.visible = m.received.Add(time.Duration(in.VisibilityTimeout) * time.Second)
		attributes := map[string]string{"ApproximateReceiveCount": strconv.Itoa(m.receives)}
		if m.group != "" {
			attributes["MessageGroupId"] = m.group
		}
		out.Messages = append(out.Messages, types.Message{
			MessageId: aws.String("id-" + m.body), Body: aws.String(m.body), ReceiptHandle: aws.String(m.handle),
			Attributes: attributes, MessageAttributes: m.attributes,
		})
	}
	f.log.maxHidden = max(f.log.maxHidden, f.hiddenLocked())
	return &out, f.changed
}

// find returns the index of the message with a handle, or what SQS answers.
func (f *fake) findLocked(handle string) (int, *types.BatchResultErrorEntry) {
	if f.entryErr != nil {
		if e := f.entryErr(handle); e != nil {
			return 0, e
		}
	}
	i := slices.IndexFunc(f.messages, func(m *stored) bool { return m.handle == handle })
	if i < 0 {
		return 0, &types.BatchResultErrorEntry{Code: aws.String("ReceiptHandleIsInvalid"), Message: aws.String("unknown"), SenderFault: true}
	}
	return i, nil
}

func (f *fake) DeleteMessageBatch(_ context.Context, in *awssqs.DeleteMessageBatchInput, _ ...func(*awssqs.Options)) (*awssqs.DeleteMessageBatchOutput, error) {
	time.Sleep(f.latency)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.deletes = append(f.log.deletes, len(in.Entries))
	if f.batchErr != nil {
		if err := f.batchErr(); err != nil {
			return nil, err
		}
	}
	var out awssqs.DeleteMessageBatchOutput
	for _, e := range in.Entries {
		i, failed := f.findLocked(*e.ReceiptHandle)
		if failed != nil {
			failed.Id = e.Id
			out.Failed = append(out.Failed, *failed)
			continue
		}
		f.messages = slices.Delete(f.messages, i, i+1)
		out.Successful = append(out.Successful, types.DeleteMessageBatchResultEntry{Id: e.Id})
	}
	return &out, nil
}

func (f *fake) ChangeMessageVisibilityBatch(_ context.Context, in *awssqs.ChangeMessageVisibilityBatchInput, _ ...func(*awssqs.Options)) (*awssqs.ChangeMessageVisibilityBatchOutput, error) {
	time.Sleep(f.latency)
	f.mu.Lock()
	defer f.mu.Unlock()
	var out awssqs.ChangeMessageVisibilityBatchOutput
	for _, e := range in.Entries {
		i, failed := f.findLocked(*e.ReceiptHandle)
		if failed != nil {
			failed.Id = e.Id
			out.Failed = append(out.Failed, *failed)
			continue
		}
		f.log.changes = append(f.log.changes, e.VisibilityTimeout)
		f.log.changedAt = append(f.log.changedAt, time.Now())
		f.messages[i].visible = time.Now().Add(time.Duration(e.VisibilityTimeout) * time.Second)
		out.Successful = append(out.Successful, types.ChangeMessageVisibilityBatchResultEntry{Id: e.Id})
	}
	f.wakeLocked()
	return &out, nil
}

func (f *fake) SendMessage(_ context.Context, in *awssqs.SendMessageInput, _ ...func(*awssqs.Options)) (*awssqs.SendMessageOutput, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sendErr != nil {
		if err := f.sendErr(in); err != nil {
			return nil, err
		}
	}
	f.log.sent = append(f.log.sent, in)
	return &awssqs.SendMessageOutput{}, nil
}

func (f *fake) GetQueueAttributes(context.Context, *awssqs.GetQueueAttributesInput, ...func(*awssqs.Options)) (*awssqs.GetQueueAttributesOutput, error) {
	return &awssqs.GetQueueAttributesOutput{Attributes: f.attributes}, nil
}

//nolint:revive // the name of the client's method
func (f *fake) GetQueueUrl(_ context.Context, in *awssqs.GetQueueUrlInput, _ ...func(*awssqs.Options)) (*awssqs.GetQueueUrlOutput, error) {
	url := "https://sqs/" + *in.QueueOwnerAWSAccountId + "/" + *in.QueueName
	return &awssqs.GetQueueUrlOutput{QueueUrl: &url}, nil
}

// apiError is an answer of SQS.
func apiError(code string, fault smithy.ErrorFault) error {
	return &smithy.OperationError{ServiceID: "SQS", OperationName: "X", Err: &smithy.GenericAPIError{Code: code, Message: "no", Fault: fault}}
}

// open makes a source of the fake. It is closed at the end of the test.
func (f *fake) open(t *testing.T, change func(*sqs.Config)) broker.Source {
	t.Helper()
	c := sqs.Config{Client: f, QueueURL: "https://sqs/1/jobs"}
	if change != nil {
		change(&c)
	}
	source, err := sqs.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = source.Close(ctx)
	})
	return source
}

// take requests n messages and returns them.
func take(t *testing.T, source broker.Source, n int) []*broker.Message {
	t.Helper()
	source.Request(n)
	var messages []*broker.Message
	for range n {
		messages = append(messages, next(t, source))
	}
	return messages
}

func next(t *testing.T, source broker.Source) *broker.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := source.Next(ctx)
	if err != nil {
		t.Fatalf("Next: got %v, want a message", err)
	}
	return m
}

func do(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func numbers(n int) (list []string) {
	for i := range n {
		list = append(list, strconv.Itoa(i))
	}
	return list
}
