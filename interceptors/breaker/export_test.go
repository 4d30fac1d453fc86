package breaker

import (
	"time"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// TableSize is how many circuits a breaker tells apart.
const TableSize = places.Max

// Unjittered makes circuits stay open for exactly OpenFor.
func Unjittered(b *Breaker) { b.jittered = func(d time.Duration) time.Duration { return d } }
