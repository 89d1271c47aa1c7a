// Command promql evaluates expressions over series as Prometheus does, for tests of alerts. It reads one JSON document
// {"series": "load 1m\n  up 1 1 1", "queries": [{"expr": "up == 0", "minute": 5}]} from its input and writes a list of
// vectors, each a list of {"labels": {...}, "value": 1}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
)

type question struct {
	Series  string `json:"series"`
	Queries []struct {
		Expr   string `json:"expr"`
		Minute int    `json:"minute"`
	} `json:"queries"`
}

type sample struct {
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

// here is as much of a running test as the storage for tests asks for.
type here struct {
	testing.TB
	ends []func()
}

func (*here) Helper()                           {}
func (h *here) Cleanup(end func())              { h.ends = append(h.ends, end) }
func (*here) Name() string                      { return "promql" }
func (*here) Logf(string, ...any)               {}
func (*here) Errorf(format string, args ...any) { fail(fmt.Errorf(format, args...)) }
func (*here) FailNow()                          { os.Exit(1) }
func (*here) TempDir() string {
	folder, err := os.MkdirTemp("", "promql")
	fail(err)
	return folder
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var asked question
	fail(json.NewDecoder(os.Stdin).Decode(&asked))
	storage := promqltest.LoadedStorage(&here{}, asked.Series)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1_000_000, Timeout: time.Minute})
	answers := [][]sample{}
	for _, each := range asked.Queries {
		at := time.Unix(0, 0).Add(time.Duration(each.Minute) * time.Minute)
		query, err := engine.NewInstantQuery(context.Background(), storage, nil, each.Expr, at)
		fail(err)
		vector, err := query.Exec(context.Background()).Vector()
		fail(err)
		answer := []sample{}
		for _, found := range vector {
			if !math.IsNaN(found.F) {
				answer = append(answer, sample{found.Metric.Map(), found.F})
			}
		}
		answers = append(answers, answer)
	}
	fail(json.NewEncoder(os.Stdout).Encode(answers))
}
