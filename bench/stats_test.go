package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMedian(t *testing.T) {
	require.Equal(t, 2.0, median([]float64{3, 1, 2}))
	require.Equal(t, 2.5, median([]float64{4, 1, 2, 3}))
	require.Equal(t, 0.0, median(nil))
}

func TestSummary(t *testing.T) {
	var pairs []pair
	for i := range 20 { // one stretch in which the other side was slow
		p := pair{reply{Seconds: 1, CPU: 2}, reply{Seconds: 2, CPU: 2}}
		if i < 2 {
			p.python.Seconds = 10
		}
		pairs = append(pairs, p)
	}
	b := benchmark{name: "x", target: target{atMost: 0.4}}
	r := summarize(b, pairs, func(r reply) float64 { return r.Seconds })
	require.Equal(t, []float64{1, 2, 0.5, 0.1, 0.5, 1}, []float64{r.Ours, r.Python, r.Ratio, r.RatioMin, r.RatioMax, r.CPURatio})
	require.False(t, r.OK)
	require.Equal(t, 20, r.N)
	require.Equal(t, "<= 0.40", r.Target)

	b.target = target{atMost: 0.5, saves: 1}
	r = summarize(b, pairs, func(r reply) float64 { return r.Seconds })
	require.True(t, r.OK)
	require.Equal(t, "<= 0.50, saves 1", r.Target)
	b.target.saves = 1.1
	require.False(t, summarize(b, pairs, func(r reply) float64 { return r.Seconds }).OK)
}

func TestTarget(t *testing.T) {
	require.True(t, target{}.met(7))
	require.True(t, target{atMost: 0.9}.met(0.9))
	require.False(t, target{atMost: 0.9}.met(0.91))
	require.True(t, target{atLeast: 1.2}.met(1.3))
	require.False(t, target{atLeast: 1.2}.met(1.1))
}

func TestTexts(t *testing.T) {
	a, b := makeTexts(), makeTexts()
	require.Equal(t, a, b)
	require.Len(t, a.Same, 512)
	require.Len(t, a.Mixed, 512)
	for _, s := range a.Same {
		require.Len(t, strings.Fields(s), 12)
	}
	short, long := 0, 0
	for _, s := range a.Mixed {
		switch n := len(strings.Fields(s)); {
		case n < 18:
			short++
		case n >= 60:
			long++
		}
	}
	require.Greater(t, short, 200)
	require.Greater(t, long, 40)
}

func TestPythonIsMissing(t *testing.T) {
	_, err := checkPython(context.Background(), "no-such-python")
	require.ErrorContains(t, err, "TORCHGO_BENCH_PYTHON")
	bare := filepath.Join(t.TempDir(), "python")
	require.NoError(t, os.WriteFile(bare, []byte("#!/bin/sh\necho '[\"torch\", \"transformers\"]'\n"), 0o755))
	_, err = checkPython(context.Background(), bare)
	require.ErrorContains(t, err, "lacks torch and transformers")
}

// Every row of the table is there once, and names what it measures.
func TestMarkdown(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "benchmarks.md"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "benchmarks.md")
	require.NoError(t, os.WriteFile(file, doc, 0o644))
	var results []result
	for _, b := range benchmarks {
		require.NotEmpty(t, b.about)
		results = append(results, summarize(b, []pair{{reply{Seconds: 1}, reply{Seconds: 2}}}, func(r reply) float64 { return r.Seconds }))
	}
	for range 2 { // it can be rewritten
		require.NoError(t, writeMarkdown(file, results, about{}))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, b := range benchmarks {
		require.Equal(t, 1, strings.Count(string(got), "\n| "+b.name+" | "+b.about+" |"), b.name)
	}
	require.NoError(t, os.WriteFile(file, []byte("no marks"), 0o644))
	require.ErrorContains(t, writeMarkdown(file, results, about{}), "no ")
}
