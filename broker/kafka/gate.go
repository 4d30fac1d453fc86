package kafka

// A gate stops the client from fetching while there is no demand. It pauses the topics as a
// whole, apart from the pauses of single partitions. Records that the client has fetched
// stay in its buffers during the pause.
//
// Each broker that leads a partition of ours has one fetch under way or in the buffer. The
// client begins the next one when the buffer is empty. So beyond the demand the client
// holds at most one fetch of each broker, which was begun while there was demand. A fetch
// that begins just before the pause brings one batch.
type gate struct {
	topics map[string]bool // that were assigned, and whether they are paused
	open   bool
}

// openLocked lets the client fetch.
func (c *consumer) openLocked() {
	if c.gate.open {
		return
	}
	c.gate.open = true
	for topic, paused := range c.gate.topics {
		if paused {
			c.gate.topics[topic] = false
			c.client.ResumeFetchTopics(topic)
		}
	}
}

// closeLocked stops the client from fetching.
func (c *consumer) closeLocked() {
	c.gate.open = false
	for topic := range c.gate.topics {
		c.pauseLocked(topic)
	}
}

func (c *consumer) pauseLocked(topic string) {
	if !c.gate.topics[topic] {
		c.gate.topics[topic] = true
		c.client.PauseFetchTopics(topic)
	}
}

// assignedLocked takes notice of the topics of an assignment, before the client fetches
// from it.
func (c *consumer) assignedLocked() {
	for p := range c.parts {
		if _, known := c.gate.topics[p.topic]; !known {
			c.gate.topics[p.topic] = false
		}
		if !c.gate.open {
			c.pauseLocked(p.topic)
		}
	}
}
