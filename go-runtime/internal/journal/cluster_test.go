package journal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

// cluster is three real NATS servers on loopback.
type cluster struct {
	servers []*server.Server
	options []*server.Options
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{}
	ports := freePorts(t, 3)
	var routes []*url.URL
	for _, port := range ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i, port := range ports {
		opts := &server.Options{
			ServerName: fmt.Sprintf("node%d", i),
			Host:       "127.0.0.1",
			Port:       server.RANDOM_PORT,
			NoSigs:     true,
			NoLog:      true,
			JetStream:  true,
			StoreDir:   t.TempDir(),
			MaxPayload: 8 << 20,
			Cluster:    server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port},
			Routes:     routes,
			// The store of a test need not fill the disk's share.
			JetStreamMaxStore:  1 << 30,
			JetStreamMaxMemory: 64 << 20,
		}
		c.options = append(c.options, opts)
		c.servers = append(c.servers, run(t, opts))
	}
	waitUntil(t, func() bool {
		leader := c.leader()
		if leader == nil || len(leader.JetStreamClusterPeers()) != len(c.servers) {
			return false
		}
		for _, s := range c.servers {
			if !s.ReadyForConnections(time.Second) || !s.JetStreamIsCurrent() {
				return false
			}
		}
		return true
	})
	return c
}

func run(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()
	s, err := server.NewServer(opts.Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return s
}

// freePorts finds ports on loopback; every node has to know all of them
// before the first one starts.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cluster) leader() *server.Server {
	for _, s := range c.servers {
		if s.JetStreamIsLeader() {
			return s
		}
	}
	return nil
}

func (c *cluster) url() string {
	var urls []string
	for _, s := range c.servers {
		urls = append(urls, s.ClientURL())
	}
	return strings.Join(urls, ",")
}

// waitUntil polls a condition that only other programs can change.
func waitUntil(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited in vain")
		}
	}
}

func TestClusterIsOwnedByOneRuntime(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	cfg := journal.Config{NATSURL: c.url()}
	first := start(t, cfg)
	second, err := journal.New(cfg, discard)
	if err != nil {
		t.Fatal(err)
	}
	var locked *journal.LockedError
	if err := second.Start(t.Context()); !errors.As(err, &locked) || !strings.Contains(locked.Holder, "process") {
		t.Errorf("a second runtime started with %v", err)
	}
	if err := first.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	third := start(t, cfg)
	if third.Durability() != "quorum" {
		t.Errorf("durability %s", third.Durability())
	}
}

func TestClusterLosesNothingWithANode(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	j := start(t, journal.Config{NATSURL: c.url()})
	s := open(t, j, journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	acknowledged := map[string]uint64{}
	write := func(key string) {
		for {
			seq, err := s.Append(ctx, journal.Message{Subject: "state." + key, Data: []byte(key)})
			if err == nil && s.Commit(ctx, seq) == nil {
				acknowledged[key] = seq
				return
			}
			if !errors.Is(err, journal.ErrUnavailable) {
				t.Fatal(err)
			}
		}
	}
	for i := range 200 {
		write(strconv.Itoa(i))
	}
	for _, node := range c.servers {
		if node.JetStreamIsStreamLeader("$G", "STATE") {
			node.Shutdown()
			node.WaitForShutdown()
			break
		}
	}
	for i := range 200 {
		write(strconv.Itoa(i + 100))
	}
	for key, seq := range acknowledged {
		r, err := s.Last(ctx, "state."+key)
		for errors.Is(err, journal.ErrUnavailable) {
			r, err = s.Last(ctx, "state."+key)
		}
		if err != nil || r.Sequence < seq || string(r.Data) != key {
			t.Fatalf("key %s: record %d, %v; %d was acknowledged", key, r.Sequence, err, seq)
		}
	}
}

// Reads ask the leader: whatever node the runtime is connected to, a read
// after an acknowledged write sees it.
func TestClusterReadsAreNotStale(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for _, node := range c.servers {
		j := start(t, journal.Config{NATSURL: node.ClientURL()})
		s := open(t, j, journal.StreamConfig{Name: "STATE", Subjects: []string{"state.>"}, LastPerSubject: true})
		for range 100 {
			seq, err := s.Append(t.Context(), journal.Message{Subject: "state.key"})
			if err != nil {
				t.Fatal(err)
			}
			if r, err := s.Last(t.Context(), "state.key"); err != nil || r.Sequence != seq {
				t.Fatalf("read record %d, %v after %d was acknowledged", r.Sequence, err, seq)
			}
		}
		if err := j.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// Scans and followers read what one node has, which may lag behind: they are not
// done before they have all that was acknowledged.
func TestClusterReadersHaveWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	j := start(t, journal.Config{NATSURL: c.url()})
	s := open(t, j, logStream)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := 0
	for c.servers[node].JetStreamIsStreamLeader("$G", "LOG") || c.servers[node].JetStreamIsLeader() {
		node++
	}
	c.servers[node].Shutdown()
	c.servers[node].WaitForShutdown()
	ms := make([]journal.Message, 20_000)
	for i := range ms {
		ms[i] = journal.Message{Subject: "log.a", Data: make([]byte, 512)}
	}
	if _, err := s.AppendAll(ctx, ms); err != nil {
		t.Fatal(err)
	}
	c.servers[node] = run(t, c.options[node])
	acknowledged := uint64(len(ms))
	// A part of the readers is served by the node that catches up.
	for !c.servers[node].JetStreamIsStreamCurrent("$G", "LOG") {
		read := uint64(0)
		upTo, err := s.Scan(ctx, acknowledged-10, false, nil, func(journal.Record) error {
			read++
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if read != upTo-(acknowledged-10) {
			t.Fatalf("%d records up to %d", read, upTo)
		}
		seq, err := s.Append(ctx, journal.Message{Subject: "log.a"})
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = seq
	}
}
