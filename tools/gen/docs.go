package main

type docEntry struct{ summary, math string }

var docs = map[string]docEntry{}
