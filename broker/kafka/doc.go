// Package kafka is a [broker.Source] for Kafka, by way of franz-go. Records are fetched only
// while there is demand for them, and the offset that is committed never passes a record
// that is not finished.
//
// Use it for work on single records that may take long or fail, such as a call for each
// record. Do not use it for pipelines that read a topic at the speed of the disk, or that
// need exactly-once transactions. franz-go alone serves those better.
//
// [Open] joins a consumer group:
//
//	source, err := kafka.Open(kafka.Config{
//		Seeds: []string{"kafka:9092"}, Group: "payments", Topics: []string{"orders"},
//		DeadLetterTopic: "orders.dead",
//	})
//
// Kafka stores one offset for each partition, so an acknowledgement alone says little. A
// record is finished when it was acknowledged or set aside. The source commits the offset
// up to which every record is finished. After a crash, Kafka delivers the records above it
// again, even if they were finished. [Config.MaxAhead] bounds how many these can be.
package kafka
