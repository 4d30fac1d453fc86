package throttle

// Drawn makes a throttle take its random numbers, from 0 up to 1, from f.
func Drawn(t *Throttle, f func() float64) { t.draw = f }
