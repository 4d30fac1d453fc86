package retry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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

	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of [DialOption] and [Config.ServiceConfig].
var ErrConfig = errors.New("retry: invalid configuration")

// A Config configures how gRPC itself retries calls. gRPC waits for the delay that the
// server asks for (grpc-retry-pushback-ms; a negative one forbids a retry) or for its own
// backoff. It retries within a budget, unary calls and streams alike, as long as only a
// status has come back (gRFC A6, "gRPC Retry Design"). Each zero field means its default.
// The zero Config retries every method. Its methods do not change it.
//
// When the last attempt is refused before its request was sent in full, grpc-go 1.85
// forgets the status. The error then wraps io.EOF, and its code is UNKNOWN. It also forgets
// the status of an attempt when the deadline ends before the next one. The code is then
// DEADLINE_EXCEEDED. A client made with interceptors.Client returns the refusal of the
// server in both cases.
//
// A retried call may have run before it failed. Leave methods that must not run twice out of
// Methods and Services, and fill at least one of the two then.
type Config struct {
	// MaxAttempts is how often a call is tried, the first attempt included. The default is
	// 3; from 2 to 5, which is gRPC's own bound.
	MaxAttempts int
	// InitialBackoff is the mean delay before the second attempt. The default is 50 ms. gRPC
	// varies each delay by a fifth either way.
	InitialBackoff time.Duration
	// MaxBackoff bounds the mean delay, but not the delay that a server asks for. The
	// default is 1 s, or InitialBackoff if that is more; at most an hour.
	MaxBackoff time.Duration
	// Multiplier is the ratio of a delay to the last one. The default is 2; from 1 to 100.
	Multiplier float64
	// Codes are the codes after which a call is retried. The default is UNAVAILABLE.
	Codes []codes.Code
	// BudgetTokens and BudgetRatio bound the extra load of retries on a failing server, for
	// each connection. A budget starts with BudgetTokens. An attempt takes one token if it
	// ends with one of Codes, or if the server forbids a retry. A successful call gives
	// back BudgetRatio. With half of BudgetTokens or less, nothing is retried. The defaults
	// are 50, from 3 to 1000 (with fewer there would be no retry), and 0.1, from 0.001 (the
	// finest step of gRPC) to 1000. A server that shuts down refuses all waiting calls at
	// once. So half of BudgetTokens should be more calls than a client has waiting at one
	// server.
	//
	// grpc-go refills the budget with each result of the resolver. A resolver that reports
	// often, such as DNS while addresses change, allows BudgetTokens/2 more retries each
	// time.
	BudgetTokens int
	BudgetRatio  float64
	// Methods are full names, as in "/service/method". Services are names, as in
	// "package.Service", and stand for all methods that Methods does not list. If both are
	// empty, the policy is for every method.
	Methods, Services []string
	// Balancer is the name of a load-balancing policy that is registered with gRPC, such as
	// "round_robin". The default is gRPC's own, pick_first. It belongs to the retries
	// because a client has only one service config. A later grpc.WithDefaultServiceConfig
	// replaces the retries, and the retries replace an earlier one.
	Balancer string
}

func (c *Config) defaults() {
	c.MaxAttempts = cmp.Or(c.MaxAttempts, 3)
	c.InitialBackoff = cmp.Or(c.InitialBackoff, 50*time.Millisecond)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, max(time.Second, c.InitialBackoff))
	c.Multiplier = cmp.Or(c.Multiplier, 2)
	if len(c.Codes) == 0 {
		c.Codes = []codes.Code{codes.Unavailable}
	}
	c.BudgetTokens = cmp.Or(c.BudgetTokens, 50)
	c.BudgetRatio = cmp.Or(c.BudgetRatio, 0.1)
}

func (c *Config) validate() error {
	var bad check.Errors
	check.Between(&bad, "MaxAttempts", c.MaxAttempts, 2, 5)
	check.Between(&bad, "InitialBackoff", c.InitialBackoff, time.Microsecond, time.Hour)
	bad.That(c.MaxBackoff >= c.InitialBackoff && c.MaxBackoff <= time.Hour,
		"MaxBackoff: got %v, want InitialBackoff (%v) to %v", c.MaxBackoff, c.InitialBackoff, time.Hour)
	check.Between(&bad, "Multiplier", c.Multiplier, 1, 100)
	for i, code := range c.Codes {
		bad.That(code != codes.OK && code <= codes.Unauthenticated, "Codes: got %v (%d), want the code of an error", code, uint32(code))
		bad.That(!slices.Contains(c.Codes[:i], code), "Codes: got %v twice, want each once", code)
	}
	check.Between(&bad, "BudgetTokens", c.BudgetTokens, 3, 1000)
	check.Between(&bad, "BudgetRatio", c.BudgetRatio, 0.001, 1000)
	bad.That(c.Balancer == "" || balancer.Get(c.Balancer) != nil,
		"Balancer: got %q, want the name of a policy that is registered with gRPC, as round_robin is", c.Balancer)
	for i, m := range c.Methods {
		service, method := split(m)
		bad.That(service != "" && method != "" && isName(m),
			"Methods: got %q, want a full name, as in /service/method, without wildcards", m)
		bad.That(!slices.Contains(c.Methods[:i], m), "Methods: got %q twice, want each once", m)
	}
	for i, s := range c.Services {
		bad.That(s != "" && !strings.Contains(s, "/") && isName(s),
			"Services: got %q, want a name, as in package.Service, without wildcards", s)
		bad.That(!slices.Contains(c.Services[:i], s), "Services: got %q twice, want each once", s)
	}
	return bad.Err(ErrConfig)
}

// isName reports whether all characters may be part of a method's full name.
func isName(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c > '~' || strings.ContainsRune(`*?"'\\,;|{}[]()`, c)
	})
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

// The types of a service config in the form that gRPC reads.
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
// grpc.WithDefaultServiceConfig or for a resolver, and for clients in other languages. The
// error wraps ErrConfig and names every wrong field.
func (c Config) ServiceConfig() (string, error) {
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

// DialOption returns a dial option with the policy. gRPC uses it if the resolver of the
// target has no service config. It returns the errors of [Config.ServiceConfig].
func DialOption(c Config) (grpc.DialOption, error) {
	config, err := c.ServiceConfig()
	if err != nil {
		return nil, err
	}
	return grpc.WithDefaultServiceConfig(config), nil
}

func (c *Config) names() []methodName {
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

// PreviousAttempts returns how often the client of a call on a server has tried the call
// before: 0 for a first attempt. The number is the client's claim. Anything but one number
// up to 255 becomes 0. Only retries by gRPC itself are counted.
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
