package djangobridge

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/djangobridge/djangobridge/go-runtime/internal/engine"
	"github.com/djangobridge/djangobridge/go-runtime/internal/gateway"
	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

const metricNamespace = "agent_runtime"

// metrics counts what happens at the edge, and shows the engine's and the
// journal's own figures when they are read.
type metrics struct {
	registry      *prometheus.Registry
	calls         *prometheus.CounterVec
	latency       *prometheus.HistogramVec
	subscriptions prometheus.Gauge
	watches       prometheus.Gauge
	streams       gateway.StreamMetrics
}

// newMetrics returns the metrics of a runtime; sources show more when they are read.
func newMetrics(version, durability string, sources ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: metricNamespace, Name: "rpcs_total",
			Help: "Calls that ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: metricNamespace, Name: "rpc_duration_seconds",
			Help:    "How long calls took, streams as long as they were open.",
			Buckets: prometheus.ExponentialBuckets(0.000_1, 2.5, 14),
		}, []string{"method"}),
		subscriptions: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "event_subscriptions",
			Help: "Event subscriptions that are open.",
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: metricNamespace, Name: "run_watches",
			Help: "Watches of runs that clients have open.",
		}),
		streams: gateway.StreamMetrics{
			Open: prometheus.NewGauge(prometheus.GaugeOpts{
				Namespace: metricNamespace, Name: "http_streams",
				Help: "Streams with a ticket that are open.",
			}),
			Events: prometheus.NewCounter(prometheus.CounterOpts{
				Namespace: metricNamespace, Name: "http_stream_events_total",
				Help: "Events sent on streams with a ticket.",
			}),
			Ended: prometheus.NewCounterVec(prometheus.CounterOpts{
				Namespace: metricNamespace, Name: "http_streams_ended_total",
				Help: "Streams with a ticket that ended or were refused, by reason.",
			}, []string{"reason"}),
		},
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: metricNamespace, Name: "build_info",
		Help:        "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version(), "durability": durability},
	})
	build.Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.calls, m.latency, m.subscriptions, m.watches, build,
		m.streams.Open, m.streams.Events, m.streams.Ended,
	)
	m.registry.MustRegister(sources...)
	return m
}

// observe counts a call that ended with a gRPC code.
func (m *metrics) observe(method, code string, took time.Duration) {
	m.calls.WithLabelValues(method, code).Inc()
	m.latency.WithLabelValues(method).Observe(took.Seconds())
}

// figures reads the engine and the journal each time metrics are asked for.
type figures struct {
	engine  *engine.Engine
	journal *journal.Journal

	runs, queued, maxQueued, executing, maxExecuting             *prometheus.Desc
	workers, leased, attemptsLost, retried, stopped, stopSeconds *prometheus.Desc
	problems, lost, appends, syncs, syncSeconds                  *prometheus.Desc
}

func newFigures(e *engine.Engine, j *journal.Journal) *figures {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(metricNamespace, "", name), help, labels, nil)
	}
	return &figures{
		engine:       e,
		journal:      j,
		runs:         desc("runs", "Runs that are kept, by state.", "state"),
		queued:       desc("queued_runs", "Runs that wait for a place."),
		maxQueued:    desc("queued_runs_limit", "How many runs may wait."),
		executing:    desc("executing_runs", "Runs that have a place."),
		maxExecuting: desc("executing_runs_limit", "How many runs may execute at a time."),
		workers:      desc("workers", "Worker processes that are connected."),
		leased:       desc("leased_runs", "Runs that workers have, or lost workers whose lease has not lapsed."),
		attemptsLost: desc("attempts_lost_total", "Attempts whose worker, or the runtime, was lost."),
		retried:      desc("attempts_retried_total", "Attempts that failed and were followed by another."),
		stopped:      desc("runs_stopped_total", "Runs that had ended whose code a worker stopped."),
		stopSeconds:  desc("run_stop_seconds_total", "What it took in all from the end of these runs until their code was gone."),
		problems:     desc("journal_problems", "Lasting faults of the journal; /readyz names them."),
		lost:         desc("journal_lost_records", "Acknowledged records that are gone with a damaged disk."),
		appends:      desc("journal_appends_total", "Records appended to the journal."),
		syncs:        desc("journal_syncs_total", "Syncs of the store; each serves all writers that wait."),
		syncSeconds:  desc("journal_sync_seconds_total", "What the syncs of the store took in all."),
	}
}

// Describe implements prometheus.Collector.
func (f *figures) Describe(descriptions chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		f.runs, f.queued, f.maxQueued, f.executing, f.maxExecuting,
		f.workers, f.leased, f.attemptsLost, f.retried, f.stopped, f.stopSeconds,
		f.problems, f.lost, f.appends, f.syncs, f.syncSeconds,
	} {
		descriptions <- d
	}
}

// Collect implements prometheus.Collector.
func (f *figures) Collect(found chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		found <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	stats := f.engine.Stats()
	for state, count := range stats.States {
		gauge(f.runs, count, string(state))
	}
	gauge(f.queued, stats.Queued)
	gauge(f.maxQueued, stats.MaxQueued)
	gauge(f.executing, stats.Executing)
	gauge(f.maxExecuting, stats.MaxConcurrent)
	gauge(f.workers, stats.Workers)
	gauge(f.leased, stats.Leased)

	problems, lost := f.journal.Problems(), uint64(0)
	for _, problem := range problems {
		if problem.Last > 0 {
			lost += problem.Last - problem.First + 1
		}
	}
	gauge(f.problems, len(problems))
	gauge(f.lost, int(lost))

	counter := func(d *prometheus.Desc, value float64) {
		found <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value)
	}
	counter(f.attemptsLost, float64(stats.Lost))
	counter(f.retried, float64(stats.Retried))
	counter(f.stopped, float64(stats.Stopped))
	counter(f.stopSeconds, stats.StopTime.Seconds())
	counts := f.journal.Stats()
	counter(f.appends, float64(counts.Appends))
	counter(f.syncs, float64(counts.Syncs))
	counter(f.syncSeconds, counts.SyncTime.Seconds())
}
