package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// write writes the dashboard as JSON.
func write(w io.Writer) error {
	d, err := build()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// build returns the dashboard. It has a row for each part of weir, with the panels in the order of their use.
func build() (dashboard.Dashboard, error) {
	b := dashboard.NewDashboardBuilder("weir").
		Uid("weir").
		Description("Who is refused and why, what waits, and which resource runs out. The alerts in ops/alerts.yml link to the runbook.").
		Tags([]string{"weir", "grpc"}).
		Refresh("10s").
		Time("now-1h", "now").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus")).
		WithVariable(dashboard.NewQueryVariableBuilder("job").Label("Job").
			Datasource(source()).
			Query(dashboard.StringOrMap{String: new("label_values(weir_limit, job)")}).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Multi(true).IncludeAll(true).AllValue(".*"))
	for _, r := range rows {
		b.WithRow(dashboard.NewRowBuilder(r.title))
		for _, p := range r.panels {
			b.WithPanel(p.build())
		}
	}
	return b.Build()
}

func source() common.DataSourceRef {
	return common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}
}

// build returns a panel, two of which fill a line.
func (p panel) build() *timeseries.PanelBuilder {
	b := timeseries.NewPanelBuilder().
		Title(p.title).Description(p.tells).Unit(p.unit).Min(0).
		Datasource(source()).
		Span(12).Height(8).
		Legend(common.NewVizLegendOptionsBuilder().DisplayMode(common.LegendDisplayModeList).
			Placement(common.LegendPlacementBottom).ShowLegend(true)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti))
	for i, q := range p.queries {
		b.WithTarget(prometheus.NewDataqueryBuilder().
			Datasource(source()).RefId(string(rune('A' + i))).Expr(q.expr).LegendFormat(q.legend))
	}
	return b
}
