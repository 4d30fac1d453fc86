package brokertest_test

import (
	"flag"
	"log/slog"
	"os"
	"testing"
)

// The tests wait most of the time, so many can run at once.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // sources log each fault of the network
	os.Exit(m.Run())
}
