module github.com/weir-go/weir/broker/rabbitmq

go 1.26.0

require (
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/weir-go/weir v0.0.0
	pgregory.net/rapid v1.3.0
)

replace github.com/weir-go/weir => ../..
