package state

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/tidwall/btree"

	"github.com/djangobridge/djangobridge/go-runtime/internal/journal"
)

var benchValue = []byte(`{"theme": "dark", "language": "en"}`)

func BenchmarkGet(b *testing.B) {
	namespace := newNamespace()
	set(b, shared, namespace, "k", string(benchValue))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, found, err := shared.Get(context.Background(), namespace, "k"); err != nil || !found {
				b.Error(found, err)
				return
			}
		}
	})
}

func BenchmarkSet(b *testing.B) {
	namespace := newNamespace()
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			var count atomic.Int64
			b.SetParallelism(writers)
			if writers == 1 {
				for b.Loop() {
					benchSet(b, namespace, count.Add(1))
				}
				return
			}
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					benchSet(b, namespace, count.Add(1))
				}
			})
		})
	}
}

func benchSet(b *testing.B, namespace string, n int64) {
	b.Helper()
	r := SetRequest{Key: fmt.Sprint("k", n%1000), Value: benchValue, RequestID: fmt.Sprint(b.Name(), n)}
	if _, err := shared.Set(context.Background(), namespace, r); err != nil {
		b.Error(err)
	}
}

func BenchmarkTransact(b *testing.B) {
	namespace := newNamespace()
	ops := []Operation{{Key: "a", Value: benchValue}, {Key: "b", Value: benchValue}}
	for b.Loop() {
		if _, err := shared.Transact(context.Background(), namespace, ops, ""); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList lists among 100,000 keys, the index being built and not.
func BenchmarkList(b *testing.B) {
	const keys = 100_000
	store, _ := openFor(b, b.TempDir(), Config{})
	messages := make([]journal.Message, 0, 1000)
	for i := range keys {
		op := Operation{Key: fmt.Sprintf("user:%06d", i), Value: benchValue}
		if messages = append(messages, message("ns", op, "", "")); len(messages) == cap(messages) {
			if _, err := store.stream.AppendAll(context.Background(), messages); err != nil {
				b.Fatal(err)
			}
			messages = messages[:0]
		}
	}

	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			listAll(b, store, "ns", ListRequest{Prefix: "user:09999"})
			store.index.mu.Lock()
			v := store.index.view
			v.unused.Reset(0)
			store.index.mu.Unlock()
			<-v.done
		}
	})
	for name, r := range map[string]ListRequest{
		"page of 100 keys":   {Prefix: "user:05", KeysOnly: true},
		"page of 100 values": {Prefix: "user:05"},
	} {
		b.Run(name, func(b *testing.B) {
			listAll(b, store, "ns", ListRequest{Prefix: "user:09999"})
			for b.Loop() {
				if entries, _, err := store.List(context.Background(), "ns", r); err != nil || len(entries) != 100 {
					b.Fatal(len(entries), err)
				}
			}
		})
	}
}

// BenchmarkIndexMemory shows what the index of a million keys takes.
func BenchmarkIndexMemory(b *testing.B) {
	const keys = 1_000_000
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	for b.Loop() {
		before := heap()
		v := &view{keys: make(map[string]*btree.Map[string, indexed])}
		for i := range keys {
			record := journal.Record{Subject: keySubject("ns", fmt.Sprintf("user:%08d", i*7919%keys)), Data: benchValue, Sequence: uint64(i)}
			if err := v.apply(record); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(heap()-before)/keys, "bytes/key")
		if v.keys["ns"].Len() != keys {
			b.Fatal(v.keys["ns"].Len())
		}
	}
}
