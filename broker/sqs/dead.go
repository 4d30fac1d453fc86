package sqs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// maxAttributes is the number of attributes that a message can have.
const maxAttributes = 10

// deadLetters sends messages to the queue for dead letters.
type deadLetters struct {
	fetcher *fetcher

	mu  sync.Mutex // guards url
	url string     // of the redrive policy's target, once it is known
}

// send copies a message to the queue for dead letters, with the reason as an attribute.
func (d *deadLetters) send(ctx context.Context, m types.Message, reason string) error {
	url, err := d.queue(ctx)
	if err != nil {
		return err
	}
	in := &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: m.Body, MessageAttributes: withReason(m, reason)}
	if group := m.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]; group != "" {
		in.MessageGroupId = &group
	}
	if d.fetcher.fifo() {
		in.MessageDeduplicationId = m.MessageId
	}
	_, err = d.fetcher.Client.SendMessage(ctx, in)
	if err == nil || !hasCode(err, "InvalidParameterValue", "InvalidMessageContents") {
		return err
	}
	// The message may have had its full size or all its attributes without the reason.
	in.MessageAttributes = m.MessageAttributes
	if _, errBare := d.fetcher.Client.SendMessage(ctx, in); errBare != nil {
		return errors.Join(err, errBare)
	}
	d.fetcher.Source.Logger.Warn("sqs: a dead letter has no attribute for its reason, since SQS refused it",
		"message", aws.ToString(m.MessageId), "reason", reason, "err", err)
	return nil
}

// withReason returns the attributes of the dead letter.
func withReason(m types.Message, reason string) map[string]types.MessageAttributeValue {
	attributes := maps.Clone(m.MessageAttributes)
	if attributes == nil {
		attributes = map[string]types.MessageAttributeValue{}
	}
	for _, a := range []struct{ name, value string }{
		{"weir-reason", allowed(reason)},
		{"weir-message-id", aws.ToString(m.MessageId)},
		{"weir-attempt", m.Attributes[string(types.MessageSystemAttributeNameApproximateReceiveCount)]},
	} {
		_, replaces := attributes[a.name]
		if a.value != "" && (replaces || len(attributes) < maxAttributes || a.name == "weir-reason") {
			attributes[a.name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(a.value)}
		}
	}
	return attributes
}

// allowed returns the reason without characters that SQS refuses, and never an empty one.
func allowed(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "\uFFFD"))
	if reason == "" {
		return "no reason was given"
	}
	return reason
}

// queue returns the address of the queue for dead letters. Without DeadLetterURL it asks SQS
// for the target of the queue's redrive policy, until it has got one.
func (d *deadLetters) queue(ctx context.Context) (string, error) {
	f := d.fetcher
	if f.DeadLetterURL != "" {
		return f.DeadLetterURL, nil
	}
	d.mu.Lock()
	url := d.url
	d.mu.Unlock()
	if url != "" {
		return url, nil
	}
	out, err := f.Client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{
		QueueUrl: &f.QueueURL, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameRedrivePolicy},
	})
	if err != nil {
		return "", fmt.Errorf("sqs: look up the redrive policy: %w", err)
	}
	policy := out.Attributes[string(types.QueueAttributeNameRedrivePolicy)]
	if policy == "" {
		return "", errNoDeadLetters
	}
	in, err := target(policy)
	if err != nil {
		return "", err
	}
	found, err := f.Client.GetQueueUrl(ctx, in)
	if err != nil {
		return "", fmt.Errorf("sqs: look up the queue for dead letters %s: %w", aws.ToString(in.QueueName), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.url = aws.ToString(found.QueueUrl)
	return d.url, nil
}

// target returns the queue that a redrive policy names.
func target(policy string) (*awssqs.GetQueueUrlInput, error) {
	var p struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if err := json.Unmarshal([]byte(policy), &p); err != nil {
		return nil, answer(fmt.Sprintf("sqs: redrive policy %q: %v", policy, err))
	}
	// arn:aws:sqs:region:account:name
	parts := strings.Split(p.Target, ":")
	if len(parts) != 6 {
		return nil, answer(fmt.Sprintf("sqs: redrive policy %q: got target %q, want the ARN of a queue", policy, p.Target))
	}
	return &awssqs.GetQueueUrlInput{QueueName: &parts[5], QueueOwnerAWSAccountId: &parts[4]}, nil
}

// An answer is an error that another try cannot mend.
type answer string

func (a answer) Error() string { return string(a) }

const errNoDeadLetters = answer("sqs: the queue has no redrive policy, and Config.DeadLetterURL names no queue for dead letters")
