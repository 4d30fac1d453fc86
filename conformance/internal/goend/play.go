package goend

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/conformance/conformancepb"
	"github.com/weir-go/weir/streamcredit"
)

// A player plays a script on one end.
type player struct {
	*end

	script *conformancepb.Script
	over   <-chan struct{} // closed when the stream has ended

	mu     sync.Mutex // guards report while several goroutines send
	report *conformancepb.Report
	next   int64 // the next element to send
}

// play plays a script. It returns the report, and the error for a handler to return.
func play(ctx context.Context, script *conformancepb.Script, e *end, over <-chan struct{}) (*conformancepb.Report, error) {
	p := &player{end: e, script: script, over: over, report: &conformancepb.Report{Id: script.GetId()}, next: 1}
	var sent, received error
	if script.GetLockstep() {
		sent, received = p.lockstep(ctx)
	} else {
		var wg sync.WaitGroup
		if e.out != nil {
			wg.Go(func() { sent = p.sendAll(ctx) })
		}
		if e.in != nil {
			wg.Go(func() { received = p.receiveAll(ctx) })
		}
		wg.Wait()
	}
	p.linger()
	return p.report, p.verdict(sent, received)
}

// verdict records the ends of both directions, and returns the first of the two errors that is a failure.
func (p *player) verdict(sent, received error) error {
	if p.out != nil {
		p.report.Sending = ending(sent)
		p.report.Sending.Ends = 1
	}
	if p.in != nil {
		ends := p.report.GetReceiving().GetEnds()
		p.report.Receiving = ending(received)
		p.report.Receiving.Ends = max(1, ends)
	}
	for _, err := range []error{sent, received} {
		if ending(err).GetKind() == conformancepb.EndKind_END_KIND_ERROR {
			return err
		}
	}
	return nil
}

// ending returns the End of a direction that ended with err. Both nil and io.EOF are the end in order.
func ending(err error) *conformancepb.End {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return &conformancepb.End{Kind: conformancepb.EndKind_END_KIND_COMPLETE}
	case errors.Is(err, streamcredit.ErrGoingAway):
		return &conformancepb.End{Kind: conformancepb.EndKind_END_KIND_GOING_AWAY}
	case errors.Is(err, streamcredit.ErrCanceled), errors.Is(err, streamcredit.ErrClosed):
		return &conformancepb.End{Kind: conformancepb.EndKind_END_KIND_CANCELED, Message: err.Error()}
	}
	st := status.Convert(err)
	e := &conformancepb.End{Kind: conformancepb.EndKind_END_KIND_ERROR, Code: int32(st.Code()), Message: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "weir" {
			e.Reason = info.GetReason()
		}
	}
	return e
}

// linger waits as long as the script says, or until the stream has ended.
func (p *player) linger() { p.pause(p.script.GetLingerMs()) }

// pause waits for some milliseconds, or until the stream has ended.
func (p *player) pause(milliseconds int32) {
	if milliseconds <= 0 {
		return
	}
	timer := time.NewTimer(ms(milliseconds))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.over:
	}
}

// sendAll sends everything and ends the direction.
func (p *player) sendAll(ctx context.Context) error {
	s := p.script.GetSend()
	errs := make([]error, max(1, s.GetSenders()))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = p.sendSome(ctx, s) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return p.endSending(ctx, s)
}

// sendSome sends elements until there are no more.
func (p *player) sendSome(ctx context.Context, s *conformancepb.Send) error {
	for {
		p.mu.Lock()
		n := p.next
		p.next++
		p.mu.Unlock()
		if n > s.GetCount() {
			return nil
		}
		p.pause(s.GetPaceMs())
		if err := p.sendOne(ctx, s, n); err != nil {
			return err
		}
	}
}

// sendOne sends element n.
func (p *player) sendOne(ctx context.Context, s *conformancepb.Send, n int64) error {
	if n == s.GetOversizeBefore() {
		switch err := p.send(ctx, n, make([]byte, s.GetOversizeBytes())); {
		case errors.Is(err, streamcredit.ErrTooLarge):
			p.count(func(r *conformancepb.Report) { r.TooLarge++ })
		case err != nil:
			return err
		}
	}
	for {
		err := p.sendInTime(ctx, ms(s.GetGiveUpMs()), n, make([]byte, s.GetPayloadBytes()))
		switch {
		case err == nil:
			p.count(func(r *conformancepb.Report) { r.Sent++ })
			return nil
		case s.GetGiveUpMs() == 0 || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		p.count(func(r *conformancepb.Report) { r.GivenUp++ })
	}
}

// sendInTime is send with a time limit. Zero means no limit.
func (p *player) sendInTime(ctx context.Context, limit time.Duration, n int64, payload []byte) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	return p.send(ctx, n, payload)
}

func (p *player) count(f func(r *conformancepb.Report)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p.report)
}

// endSending ends the direction as the script says, and waits for the receiver as Finish does.
func (p *player) endSending(ctx context.Context, s *conformancepb.Send) error {
	var err error
	switch s.GetEnding() {
	case conformancepb.Ending_ENDING_ERROR:
		err = p.out.CloseWithError(status.Error(codes.Code(uint32(s.GetErrorCode())), s.GetErrorMessage()))
	case conformancepb.Ending_ENDING_GOING_AWAY:
		err = p.out.CloseGoingAway()
	case conformancepb.Ending_ENDING_NOTHING:
		<-p.out.Done()
		return p.out.WaitCredit(ctx)
	case conformancepb.Ending_ENDING_LEAVE:
		return nil
	default:
	}
	if err != nil {
		return err
	}
	return p.out.Finish(ctx)
}

// receiveAll takes elements until the end.
func (p *player) receiveAll(ctx context.Context) error {
	r := p.script.GetReceive()
	if r.GetRounds() > 0 {
		return p.rounds(ctx, r)
	}
	if err := p.ask(r); err != nil {
		return err
	}
	for {
		if r.LeaveAfter != nil && p.report.GetReceived() == r.GetLeaveAfter() {
			return nil
		}
		if done, err := p.before(ctx, r); done || err != nil {
			return err
		}
		p.pause(r.GetPaceMs())
		if err := p.receiveOne(ctx); err != nil {
			return p.ended(ctx, err)
		}
	}
}

// ask makes the demands of the script.
func (p *player) ask(r *conformancepb.Receive) error {
	for _, n := range r.GetRequests() {
		if err := p.in.Request(n); err != nil {
			return err
		}
	}
	return nil
}

// rounds asks for elements, takes some of them and drains, again and again, and then cancels.
func (p *player) rounds(ctx context.Context, r *conformancepb.Receive) error {
	for range r.GetRounds() {
		if err := p.ask(r); err != nil {
			return err
		}
		for range r.GetDrainAfter() {
			if err := p.receiveOne(ctx); err != nil {
				return err
			}
		}
		burned, err := p.in.Drain(ctx)
		if err != nil {
			return err
		}
		p.count(func(r *conformancepb.Report) { r.Burned += burned })
	}
	p.in.Cancel("the script has no more rounds")
	return streamcredit.ErrClosed
}

// before cancels, drains or stops taking elements, if the script says so for the current number of elements.
// It reports whether it canceled.
func (p *player) before(ctx context.Context, r *conformancepb.Receive) (canceled bool, err error) {
	n := p.report.GetReceived()
	if r.CancelAfter != nil && n == r.GetCancelAfter() {
		for range max(1, r.GetCancels()) {
			p.in.Cancel("the script says so")
		}
		return true, streamcredit.ErrClosed
	}
	if r.Take != nil && n == r.GetTake() {
		<-p.over
	}
	if r.DrainAfter != nil && n == r.GetDrainAfter() {
		burned, _ := p.in.Drain(ctx) // if the stream ended instead, Recv returns why
		p.count(func(r *conformancepb.Report) { r.Burned += burned })
	}
	return false, nil
}

// receiveOne takes one element.
func (p *player) receiveOne(ctx context.Context) error {
	n, err := p.recv(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Received++
	if n != p.report.GetReceived() && p.report.GetOutOfOrder() == 0 {
		p.report.OutOfOrder = n
	}
	return nil
}

// ended counts the different errors that Recv returns at the end.
func (p *player) ended(ctx context.Context, err error) error {
	p.mu.Lock()
	p.report.Receiving = &conformancepb.End{Ends: 1}
	p.mu.Unlock()
	if p.script.GetLingerMs() > 0 { // a late message may change the error
		p.linger()
	}
	for range 3 {
		if _, again := p.recv(ctx); again == nil || again.Error() != err.Error() {
			p.report.Receiving.Ends++
		}
	}
	return err
}

// lockstep sends and receives in one goroutine.
func (p *player) lockstep(ctx context.Context) (sent, received error) {
	s := p.script.GetSend()
	for n := int64(1); n <= s.GetCount(); n++ {
		if err := p.sendOne(ctx, s, n); err != nil {
			return err, err
		}
		if err := p.receiveOne(ctx); err != nil {
			return err, err
		}
	}
	if err := p.out.Close(); err != nil {
		return err, err
	}
	for {
		if err := p.receiveOne(ctx); err != nil {
			return nil, p.ended(ctx, err)
		}
	}
}
