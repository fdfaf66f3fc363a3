//go:build !linux

package pretrained

// physicalMemory is not known here: no plan is refused for its size.
func physicalMemory() int64 { return 0 }

// hugePages is for Linux.
type hugePages struct{}

func (*hugePages) use([]byte) {}
