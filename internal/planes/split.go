package planes

import "encoding/binary"

// split puts byte k of each element of src into the k-th part of dst.
func split(dst, src []byte, element int) {
	n := len(src) / element
	switch element {
	case 1:
		copy(dst, src)
	case 2:
		a, b := dst[:n], dst[n:2*n]
		i := 0
		for ; i+8 <= n; i += 8 {
			x, y := binary.LittleEndian.Uint64(src[2*i:]), binary.LittleEndian.Uint64(src[2*i+8:])
			binary.LittleEndian.PutUint64(a[i:], even(x)|even(y)<<32)
			binary.LittleEndian.PutUint64(b[i:], even(x>>8)|even(y>>8)<<32)
		}
		for ; i < n; i++ {
			a[i], b[i] = src[2*i], src[2*i+1]
		}
	case 4:
		a, b, c, d := dst[:n], dst[n:2*n], dst[2*n:3*n], dst[3*n:4*n]
		i := 0
		for ; i+8 <= n; i += 8 {
			s := src[4*i : 4*i+32]
			x, y := binary.LittleEndian.Uint64(s), binary.LittleEndian.Uint64(s[8:])
			z, w := binary.LittleEndian.Uint64(s[16:]), binary.LittleEndian.Uint64(s[24:])
			// Bytes 0 and 2 of four elements, then those of the other four; bytes 1 and 3 likewise.
			p, q := even(x)|even(y)<<32, even(z)|even(w)<<32
			binary.LittleEndian.PutUint64(a[i:], even(p)|even(q)<<32)
			binary.LittleEndian.PutUint64(c[i:], even(p>>8)|even(q>>8)<<32)
			p, q = even(x>>8)|even(y>>8)<<32, even(z>>8)|even(w>>8)<<32
			binary.LittleEndian.PutUint64(b[i:], even(p)|even(q)<<32)
			binary.LittleEndian.PutUint64(d[i:], even(p>>8)|even(q>>8)<<32)
		}
		for ; i < n; i++ {
			a[i], b[i], c[i], d[i] = src[4*i], src[4*i+1], src[4*i+2], src[4*i+3]
		}
	default:
		for k := range element {
			plane := dst[k*n : (k+1)*n]
			for i := range plane {
				plane[i] = src[i*element+k]
			}
		}
	}
}

// join is the inverse of split.
func join(dst, src []byte, element int) {
	n := len(dst) / element
	switch element {
	case 1:
		copy(dst, src)
	case 2:
		a, b := src[:n], src[n:2*n]
		i := 0
		for ; i+8 <= n; i += 8 {
			x, y := binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])
			binary.LittleEndian.PutUint64(dst[2*i:], spread(x)|spread(y)<<8)
			binary.LittleEndian.PutUint64(dst[2*i+8:], spread(x>>32)|spread(y>>32)<<8)
		}
		for ; i < n; i++ {
			dst[2*i], dst[2*i+1] = a[i], b[i]
		}
	case 4:
		a, b, c, d := src[:n], src[n:2*n], src[2*n:3*n], src[3*n:4*n]
		i := 0
		for ; i+8 <= n; i += 8 {
			x, y := binary.LittleEndian.Uint64(a[i:]), binary.LittleEndian.Uint64(b[i:])
			z, w := binary.LittleEndian.Uint64(c[i:]), binary.LittleEndian.Uint64(d[i:])
			t := dst[4*i : 4*i+32]
			p, q := spread(x)|spread(z)<<8, spread(y)|spread(w)<<8 // bytes 0 and 2, 1 and 3, of four elements
			binary.LittleEndian.PutUint64(t, spread(p)|spread(q)<<8)
			binary.LittleEndian.PutUint64(t[8:], spread(p>>32)|spread(q>>32)<<8)
			p, q = spread(x>>32)|spread(z>>32)<<8, spread(y>>32)|spread(w>>32)<<8
			binary.LittleEndian.PutUint64(t[16:], spread(p)|spread(q)<<8)
			binary.LittleEndian.PutUint64(t[24:], spread(p>>32)|spread(q>>32)<<8)
		}
		for ; i < n; i++ {
			dst[4*i], dst[4*i+1], dst[4*i+2], dst[4*i+3] = a[i], b[i], c[i], d[i]
		}
	default:
		for k := range element {
			for i, b := range src[k*n : (k+1)*n] {
				dst[i*element+k] = b
			}
		}
	}
}

// even packs bytes 0, 2, 4 and 6 of x into its lower half.
func even(x uint64) uint64 {
	x &= 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return (x | x>>16) & 0x00000000ffffffff
}

// spread puts the lower four bytes of x at 0, 2, 4 and 6.
func spread(x uint64) uint64 {
	x &= 0x00000000ffffffff
	x = (x | x<<16) & 0x0000ffff0000ffff
	return (x | x<<8) & 0x00ff00ff00ff00ff
}
