package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// onRabbitMQ runs the incident on RabbitMQ. Each consumer has a durable classic queue.
var onRabbitMQ = kind{
	title: "RabbitMQ", load: usualLoad, missing: func() error {
		const install = "Debian's package rabbitmq-server"
		return errors.Join(needs(rabbitProgram, install), needs("epmd", install), needs("erl_call", install))
	},
	serve: serveRabbitMQ, connect: connectRabbitMQ, bare: bareRabbitMQ, source: sourceRabbitMQ,
}

// rabbitProgram is where Debian has the server. The one on the PATH changes the user.
const rabbitProgram = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// serveRabbitMQ starts a server with an epmd of its own, so that it disturbs no other. It
// puts the ways to ask the server into the query of its address.
func serveRabbitMQ(ctx context.Context) (string, func(), error) {
	ports, err := freePorts(2)
	if err != nil {
		return "", nil, err
	}
	var epmd *launched
	var query url.Values
	run := func(dir, port string) (*launched, error) {
		node := rabbitNode{dir: dir, name: "weir" + port + "@localhost", epmd: ports[0]}
		query = node.query()
		for name, text := range map[string]string{
			"plugins":       "[].\n",
			"rabbitmq.conf": "vm_memory_high_watermark.absolute = 1GiB\ndisk_free_limit.absolute = 10MB\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return nil, err
			}
		}
		var err error
		if epmd, err = launch(dir, "epmd", []string{"-address", "127.0.0.1", "-port", node.epmd}, nil); err != nil {
			return nil, err
		}
		env := append(node.env(),
			"RABBITMQ_BASE="+dir, "RABBITMQ_MNESIA_BASE="+dir+"/mnesia", "RABBITMQ_LOG_BASE="+dir+"/log", "RABBITMQ_LOGS=-",
			"RABBITMQ_NODENAME="+node.name, "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+port,
			"RABBITMQ_DIST_PORT="+ports[1], "RABBITMQ_CONFIG_FILE="+dir+"/rabbitmq", "RABBITMQ_CONF_ENV_FILE=/dev/null",
			"RABBITMQ_ENABLED_PLUGINS_FILE="+dir+"/plugins", "RABBITMQ_PID_FILE="+dir+"/pid",
			"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none -kernel inet_dist_use_interface {127,0,0,1}")
		return launch(dir, rabbitProgram, nil, env)
	}
	addr, stop, err := serveProgram(ctx, run, func(_ context.Context, addr string) error {
		// A server that is starting may accept a connection and not answer.
		conn, err := amqp.DialConfig(rabbitURL(addr), amqp.Config{Dial: amqp.DefaultDial(2 * time.Second)})
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		if epmd != nil {
			epmd.stop()
		}
		return "", nil, err
	}
	return rabbitURL(addr) + "?" + query.Encode(), func() {
		stop()
		epmd.stop()
	}, nil
}

func rabbitURL(addr string) string { return "amqp://guest:guest@" + addr + "/" }

// bareRabbitMQ has as many workers as the gateway. It sets no prefetch count, so the broker
// sends all that it has, and the client keeps it for the workers.
func bareRabbitMQ(addr string, pay func([]byte)) error {
	conn, err := amqp.Dial(addr)
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	deliveries, err := ch.Consume(roleBare, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for range workers {
		go func() {
			for d := range deliveries {
				pay(d.Body)
				_ = d.Ack(false) // or it comes again
			}
		}()
	}
	return <-conn.NotifyClose(make(chan *amqp.Error, 1))
}

func sourceRabbitMQ(ctx context.Context, addr string) (broker.Source, error) {
	return rabbitmq.Open(ctx, rabbitmq.Config{URLs: []string{addr}, Queue: roleWeir, DeadLetterKey: dead})
}

type rabbitServer struct {
	node rabbitNode
	conn *amqp.Connection
	ch   *amqp.Channel
}

func connectRabbitMQ(_ context.Context, addr string) (server, error) {
	u, err := url.Parse(addr)
	if err != nil {
		return nil, err
	}
	s := &rabbitServer{node: nodeOf(u.Query())}
	if s.conn, err = amqp.Dial(addr); err != nil {
		return nil, err
	}
	if s.ch, err = s.conn.Channel(); err != nil {
		return nil, err
	}
	err = errors.Join(s.ch.Confirm(false), s.ch.ExchangeDeclare(topic, amqp.ExchangeFanout, true, false, false, false, nil))
	for _, queue := range []string{roleBare, roleWeir, dead} {
		_, errQueue := s.ch.QueueDeclare(queue, true, false, false, false, nil)
		err = errors.Join(err, errQueue)
		if queue != dead {
			err = errors.Join(err, s.ch.QueueBind(queue, "", topic, false, nil))
		}
	}
	return s, err
}

func (s *rabbitServer) publish(ctx context.Context, payments [][]byte) error {
	confirms := make([]*amqp.DeferredConfirmation, len(payments))
	for i, p := range payments {
		var err error
		confirms[i], err = s.ch.PublishWithDeferredConfirmWithContext(ctx, topic, "", false, false,
			amqp.Publishing{Body: p, DeliveryMode: amqp.Persistent})
		if err != nil {
			return err
		}
	}
	for _, c := range confirms {
		if ok, err := c.WaitContext(ctx); err != nil || !ok {
			return errors.Join(err, errors.New("the broker has not confirmed a payment"))
		}
	}
	return nil
}

// backlog has the server evaluate an expression, because the protocol tells nothing about
// messages that are not acknowledged.
func (s *rabbitServer) backlog(ctx context.Context, consumer string) (b backlog, err error) {
	out, err := s.node.eval(ctx, fmt.Sprintf("{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<%q>>)), "+
		"[{_, R}, {_, U}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]), {R, U}.", consumer))
	if err != nil {
		return b, err
	}
	var ready int
	if _, err := fmt.Sscanf(out, "{ok, {%d, %d}}", &ready, &b.Held); err != nil {
		return b, fmt.Errorf("evaluate: got %q: %w", out, err)
	}
	b.Left = ready + b.Held
	return b, nil
}

func (s *rabbitServer) close() { _ = s.conn.Close() }

// A rabbitNode says how to ask a server.
type rabbitNode struct{ dir, name, epmd string }

func (n rabbitNode) query() url.Values {
	return url.Values{"dir": {n.dir}, "node": {n.name}, "epmd": {n.epmd}}
}

func nodeOf(q url.Values) rabbitNode { return rabbitNode{q.Get("dir"), q.Get("node"), q.Get("epmd")} }

// env are the variables that lead to the server's own epmd and its cookie.
func (n rabbitNode) env() []string {
	return []string{"HOME=" + n.dir, "ERL_EPMD_PORT=" + n.epmd, "ERL_EPMD_ADDRESS=127.0.0.1"}
}

var calls atomic.Uint64 // of eval

// eval has the server evaluate Erlang. rabbitmqctl would do, and need seconds.
func (n rabbitNode) eval(ctx context.Context, expression string) (string, error) {
	cookie, err := os.ReadFile(filepath.Join(n.dir, ".erlang.cookie"))
	if err != nil {
		return "", err
	}
	// A name of its own for each call, since the server takes one connection from a name.
	caller := fmt.Sprintf("incident%d", calls.Add(1))
	args := []string{"-h", caller, "-c", string(cookie), "-n", n.name, "-e"}
	cmd := exec.CommandContext(ctx, "erl_call", args...) //nolint:gosec // the arguments are those of the server
	cmd.Stdin, cmd.Env = strings.NewReader(expression+"\n"), append(os.Environ(), n.env()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("erl_call: %w: %s", err, out)
	}
	return string(out), nil
}
