package breaker

import (
	"cmp"
	"slices"
)

// AddressStats counts the calls of a circuit that went to one address.
type AddressStats struct {
	// Target and Method name the circuit, as in [CircuitStats].
	Target, Method string
	// Address is the address of the server, and the local one after a space if it is known.
	Address string
	// Calls counts the calls, and Failed the ones among them that failed.
	Calls, Failed int
}

// Addresses returns the addresses that circuits know, sorted by target, method and address. A
// closed circuit counts addresses only while calls fail, within the window. For an open or
// half-open one the counts are those of the moment at which it opened. Call it for a page, not for every
// call. It takes the lock of each circuit.
func (b *Breaker) Addresses() []AddressStats {
	if b.inert() {
		return nil
	}
	var all []AddressStats
	for _, c := range b.circuits.All() {
		all = append(all, c.addresses()...)
	}
	slices.SortFunc(all, func(x, y AddressStats) int {
		return cmp.Or(cmp.Compare(x.Target, y.Target), cmp.Compare(x.Method, y.Method), cmp.Compare(x.Address, y.Address))
	})
	return all
}

func (c *circuit) addresses() []AddressStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stateOf(c.era.Load()) != Closed {
		return c.opener
	}
	return c.addressesLocked()
}

// addressesLocked returns the addresses of the calls of a closed circuit.
func (c *circuit) addressesLocked() (all []AddressStats) {
	for addr, t := range c.peers.All() {
		if addr != "" {
			all = append(all, AddressStats{c.Target, c.Method, addr, t.Calls, t.Failed})
		}
	}
	return all
}
