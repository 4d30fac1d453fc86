package interceptors

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// A RetryConfig says how gRPC itself retries calls: after a delay that the server
// asks for (grpc-retry-pushback-ms; a negative one forbids it) or its own backoff,
// within a budget, and for unary calls and streams alike as long as nothing but a
// status has come back (gRFC A6, "gRPC Retry Design"). Every zero field means its
// default; the zero RetryConfig retries every method. Its methods do not change it.
//
// When the last attempt is refused before its request was all sent, grpc-go 1.85 forgets
// the status: the error wraps io.EOF, and its code is UNKNOWN. It also forgets the status
// of an attempt when the deadline ends before the next one, and the code is then
// DEADLINE_EXCEEDED. A client with [Client] returns the server's refusal in both cases,
// so that throttle, limit and breaker count it, too.
//
// A retried call may have run before it failed. List methods that must not run twice
// neither in Methods nor in Services, and fill one of the two then.
type RetryConfig struct {
	// MaxAttempts is how often a call is tried, the first time included; default 3,
	// from 2 to 5, which is as often as gRPC tries.
	MaxAttempts int
	// InitialBackoff is the mean delay before the second attempt; default 50 ms.
	// gRPC varies each delay by a fifth either way.
	InitialBackoff time.Duration
	// MaxBackoff bounds the mean delay, not what servers ask for; default 1 s, or
	// InitialBackoff if that is more; at most an hour.
	MaxBackoff time.Duration
	// Multiplier is the ratio of a delay to the last; default 2, from 1 to 100.
	Multiplier float64
	// Codes are the codes after which a call is tried again; default UNAVAILABLE.
	Codes []codes.Code
	// BudgetTokens and BudgetRatio bound how much retries add to the load of a server
	// that fails, for each connection: a budget starts with BudgetTokens; each attempt
	// that ended with one of Codes, or whose server forbade a retry, takes one; each call
	// that went well gives BudgetRatio back; and with half of BudgetTokens or less
	// nothing is retried. Defaults 50, from 3 to 1000 (with fewer there would never be a
	// retry), and 0.1, from 0.001 (the finest that gRPC knows) to 1000. A server that
	// shuts down refuses all calls in its queue at once, so half of BudgetTokens should be
	// more calls than a client has waiting at one server.
	//
	// grpc-go fills the budget up with each result of the connection's resolver. One
	// that reports often, such as DNS while addresses change, allows BudgetTokens/2
	// more retries each time.
	BudgetTokens int
	BudgetRatio  float64
	// Methods are full names, as in "/service/method"; Services names, as in
	// "package.Service", for all methods that Methods does not have. With neither, the
	// policy is for every method.
	Methods, Services []string
	// Balancer is the name of a load-balancing policy that is registered with gRPC, such
	// as "round_robin"; default gRPC's own, pick_first. It stands here because a client
	// has one service config: a grpc.WithDefaultServiceConfig that follows replaces the
	// retries, and one that came before is replaced by them.
	Balancer string
}

func (c *RetryConfig) defaults() {
	c.MaxAttempts = or(c.MaxAttempts, 3)
	c.InitialBackoff = or(c.InitialBackoff, 50*time.Millisecond)
	c.MaxBackoff = or(c.MaxBackoff, max(time.Second, c.InitialBackoff))
	c.Multiplier = or(c.Multiplier, 2)
	if len(c.Codes) == 0 {
		c.Codes = []codes.Code{codes.Unavailable}
	}
	c.BudgetTokens = or(c.BudgetTokens, 50)
	c.BudgetRatio = or(c.BudgetRatio, 0.1)
}

func (c *RetryConfig) validate() error {
	var bad checks
	between(&bad, "MaxAttempts", c.MaxAttempts, 2, 5)
	between(&bad, "InitialBackoff", c.InitialBackoff, time.Microsecond, time.Hour)
	bad.that(c.MaxBackoff >= c.InitialBackoff && c.MaxBackoff <= time.Hour,
		"MaxBackoff: got %v, want InitialBackoff (%v) to %v", c.MaxBackoff, c.InitialBackoff, time.Hour)
	between(&bad, "Multiplier", c.Multiplier, 1, 100)
	for i, code := range c.Codes {
		bad.that(code != codes.OK && code <= lastCode, "Codes: got %v (%d), want the code of an error", code, uint32(code))
		bad.that(!slices.Contains(c.Codes[:i], code), "Codes: got %v twice, want each once", code)
	}
	between(&bad, "BudgetTokens", c.BudgetTokens, 3, 1000)
	between(&bad, "BudgetRatio", c.BudgetRatio, 0.001, 1000)
	bad.that(c.Balancer == "" || balancer.Get(c.Balancer) != nil,
		"Balancer: got %q, want the name of a policy that is registered with gRPC, as round_robin is", c.Balancer)
	for i, m := range c.Methods {
		service, method := split(m)
		bad.that(service != "" && method != "", "Methods: got %q, want a full name, as in /service/method", m)
		bad.that(!slices.Contains(c.Methods[:i], m), "Methods: got %q twice, want each once", m)
	}
	for i, s := range c.Services {
		bad.that(s != "" && !strings.Contains(s, "/"), "Services: got %q, want a name, as in package.Service", s)
		bad.that(!slices.Contains(c.Services[:i], s), "Services: got %q twice, want each once", s)
	}
	return bad.err()
}

// split returns the parts of a full method name; neither is empty if it is one.
func split(full string) (service, method string) {
	rest, ok := strings.CutPrefix(full, "/")
	if !ok {
		return "", ""
	}
	service, method, _ = strings.Cut(rest, "/")
	if strings.Contains(method, "/") {
		return "", ""
	}
	return service, method
}

// What follows is the form of a service config that gRPC reads.
type (
	serviceConfig struct {
		Balancers       []map[string]struct{} `json:"loadBalancingConfig,omitempty"`
		MethodConfig    []methodConfig        `json:"methodConfig"`
		RetryThrottling retryThrottling       `json:"retryThrottling"`
	}
	methodConfig struct {
		Name        []methodName `json:"name"`
		RetryPolicy retryPolicy  `json:"retryPolicy"`
	}
	methodName struct {
		Service string `json:"service,omitempty"`
		Method  string `json:"method,omitempty"`
	}
	retryPolicy struct {
		MaxAttempts          int      `json:"maxAttempts"`
		InitialBackoff       string   `json:"initialBackoff"`
		MaxBackoff           string   `json:"maxBackoff"`
		BackoffMultiplier    float64  `json:"backoffMultiplier"`
		RetryableStatusCodes []string `json:"retryableStatusCodes"`
	}
	retryThrottling struct {
		MaxTokens  int     `json:"maxTokens"`
		TokenRatio float64 `json:"tokenRatio"`
	}
)

// ServiceConfig returns the policy as a gRPC service config in JSON, for
// grpc.WithDefaultServiceConfig or for what a resolver returns, also to clients in
// other languages. It returns an error that wraps ErrConfig and names every field that
// is wrong.
func (c RetryConfig) ServiceConfig() (string, error) {
	c.defaults()
	if err := c.validate(); err != nil {
		return "", err
	}
	policy := retryPolicy{
		MaxAttempts:       c.MaxAttempts,
		InitialBackoff:    seconds(c.InitialBackoff),
		MaxBackoff:        seconds(c.MaxBackoff),
		BackoffMultiplier: c.Multiplier,
	}
	for _, code := range c.Codes {
		policy.RetryableStatusCodes = append(policy.RetryableStatusCodes, wireName(code))
	}
	config := serviceConfig{
		MethodConfig:    []methodConfig{{Name: c.names(), RetryPolicy: policy}},
		RetryThrottling: retryThrottling{c.BudgetTokens, c.BudgetRatio},
	}
	if c.Balancer != "" {
		config.Balancers = []map[string]struct{}{{c.Balancer: {}}}
	}
	data, err := json.Marshal(config)
	return string(data), err
}

// RetryDialOption returns a dial option with the policy. gRPC heeds it as long as the
// resolver of the target has no service config of its own. The errors are those of
// [RetryConfig.ServiceConfig].
func RetryDialOption(c RetryConfig) (grpc.DialOption, error) {
	config, err := c.ServiceConfig()
	if err != nil {
		return nil, err
	}
	return grpc.WithDefaultServiceConfig(config), nil
}

func (c *RetryConfig) names() []methodName {
	names := make([]methodName, 0, len(c.Methods)+len(c.Services))
	for _, m := range c.Methods {
		service, method := split(m)
		names = append(names, methodName{service, method})
	}
	for _, s := range c.Services {
		names = append(names, methodName{Service: s})
	}
	if len(names) == 0 {
		return []methodName{{}} // every method
	}
	return names
}

// seconds formats a duration that is not negative as protobuf's JSON does.
func seconds(d time.Duration) string {
	whole, rest := d/time.Second, d%time.Second
	if rest == 0 {
		return fmt.Sprintf("%ds", whole)
	}
	return strings.TrimRight(fmt.Sprintf("%d.%09d", whole, rest), "0") + "s"
}

// wireName returns the name of a code in service configs: UNAVAILABLE, not Unavailable.
func wireName(c codes.Code) string {
	if c == codes.Canceled {
		return "CANCELLED" // with two, there
	}
	var b strings.Builder
	for i, r := range c.String() {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// previousAttemptsKey is the metadata in which gRPC's clients count.
const previousAttemptsKey = "grpc-previous-rpc-attempts"

// PreviousAttempts returns how often the client of a call on a server has tried it
// before: 0 for a first attempt. It is what the client says, so anything but one
// number up to 255 is taken for 0. Only retries by gRPC itself are counted there.
func PreviousAttempts(ctx context.Context) int {
	values := metadata.ValueFromIncomingContext(ctx, previousAttemptsKey)
	if len(values) != 1 {
		return 0
	}
	n, err := strconv.ParseUint(values[0], 10, 8)
	if err != nil {
		return 0
	}
	return int(n)
}
