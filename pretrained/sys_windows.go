package pretrained

// peakRSS is not measured here.
func peakRSS() int64 { return 0 }
