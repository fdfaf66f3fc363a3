//go:build !linux

package pretrained

// physicalMemory is not known here: no plan is refused for its size.
func physicalMemory() int64 { return 0 }

// useHugePages is for Linux.
func useHugePages([]byte, bool) {}
