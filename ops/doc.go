// Package ops has the tests of alerts.yml, of the dashboard and of the runbook.
//
// They run promtool and Prometheus, which Debian's package prometheus has. Without them the tests are skipped, unless
// WEIR_PROMETHEUS=required is set.
package ops
