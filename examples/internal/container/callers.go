package container

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors"
)

// usualCalls calls at random moments, as many callers that know nothing of each other do.
func (r *run) usualCalls(ctx context.Context) {
	dice := rand.New(rand.NewPCG(r.Seed, 1))
	small, big := &blob{Value: make([]byte, r.Size)}, &blob{Value: make([]byte, large)}
	for i, late := range every(ctx, r.Rate, dice) {
		payload := small
		if r.Trouble == Uneven && dice.IntN(100) == 0 {
			payload = big
		}
		at := time.Since(r.began)
		if late > tooLate {
			r.late.Add(1)
		}
		r.callers.Go(func() {
			err := r.attempts(ctx, i, payload)
			if ctx.Err() != nil && err != nil {
				return // the end of all, not of this call
			}
			if err == nil {
				r.good.Add(1)
			} else if refusal, ok := interceptors.RefusalFrom(err); ok {
				r.refused.Add(1)
				r.count(refusal.Reason)
			}
			r.served.add(at, err == nil)
		})
	}
}

// count counts a refusal.
func (r *run) count(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reasons[reason]++
}

// attempts calls and retries at once, which does no good.
func (r *run) attempts(ctx context.Context, i int, req *blob) (err error) {
	for range 1 + r.Retries {
		one, cancel := context.WithTimeout(ctx, r.Deadline)
		err = r.conn(i).Invoke(one, work, req, new(blob))
		cancel()
		if err == nil {
			return nil
		}
	}
	return err
}

func (r *run) criticalCalls(ctx context.Context) {
	for range every(ctx, 20, rand.New(rand.NewPCG(r.Seed, 2))) {
		at := time.Since(r.began)
		r.callers.Go(func() {
			one, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			err := r.apart.Invoke(one, vital, &blob{}, new(blob))
			if err == nil || ctx.Err() == nil {
				r.critical.add(at, err == nil)
			}
		})
	}
}

// backgroundCalls fill the cache.
func (r *run) backgroundCalls(ctx context.Context) {
	if r.Background == 0 {
		return
	}
	for i := range every(ctx, r.Background, rand.New(rand.NewPCG(r.Seed, 4))) {
		r.callers.Go(func() {
			one, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_ = r.conn(i).Invoke(one, warm, &blob{}, new(blob))
		})
	}
}

// tooLate is how late a call may begin on a machine that can measure anything.
const tooLate = 50 * time.Millisecond

// every yields numbers at random moments, so many a second on the mean, until ctx ends, and
// by how much each is late.
func every(ctx context.Context, rate float64, dice *rand.Rand) func(func(int, time.Duration) bool) {
	return func(yield func(int, time.Duration) bool) {
		due := time.Now()
		for i := 0; ; i++ {
			due = due.Add(time.Duration(dice.ExpFloat64() / rate * float64(time.Second)))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return
			}
			if ctx.Err() != nil || !yield(i, time.Since(due)) {
				return
			}
		}
	}
}

func (r *run) conn(i int) *grpc.ClientConn { return r.conns[i%10] }

// makeTrouble adds the clients that do not read.
func (r *run) makeTrouble(ctx context.Context) {
	select {
	case <-time.After(r.From):
	case <-ctx.Done():
		return
	}
	trouble, cancel := context.WithTimeout(ctx, r.To-r.From)
	defer cancel()
	var clients sync.WaitGroup
	switch r.Trouble {
	case Unread:
		rate := 500.0
		if r.scale() > 1 {
			rate = fill / float64(r.answer())
		}
		for i := range every(trouble, rate, rand.New(rand.NewPCG(r.Seed, 3))) {
			if i >= 1000 {
				break
			}
			clients.Go(func() { r.askAndNotRead(trouble, i) })
		}
	case Streams:
		for i := range 256 * min(r.scale(), 4) {
			conn := i
			if r.scale() > 1 {
				conn = 0
			}
			clients.Go(func() { r.talkAndNotListen(trouble, conn, talk) })
		}
		for range min(r.scale()-1, 4) {
			clients.Go(func() { r.talkAndNotListen(trouble, 0, drain) })
		}
	}
	<-trouble.Done()
	clients.Wait()
}

func (r *run) askAndNotRead(ctx context.Context, i int) {
	s, err := r.conn(i).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, ask, grpc.StaticMethod())
	if err != nil || s.SendMsg(&blob{}) != nil || s.CloseSend() != nil {
		return
	}
	<-ctx.Done()
}

func (r *run) talkAndNotListen(ctx context.Context, i int, method string) {
	s, err := r.conn(i).NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.StaticMethod())
	m := &blob{Value: make([]byte, 64<<10)}
	for err == nil {
		err = s.SendMsg(m)
	}
	<-ctx.Done()
}
