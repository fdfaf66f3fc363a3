package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	_, err = safetensors.WriteSharded(context.Background(), dir, []safetensors.Source{
		{Name: "embed", DType: safetensors.U8, Shape: []int{2, 3}, Write: safetensors.Data([]byte{1, 2, 3, 4, 5, 6})},
		{Name: "bias", DType: safetensors.U8, Shape: []int{2}, Write: safetensors.Data([]byte{7, 8})},
	}, safetensors.ShardOptions{MaxShardBytes: 6, Metadata: map[string]string{"format": "pt"}})
	if err != nil {
		log.Fatal(err)
	}

	c, err := checkpoint.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for f, t := range c.All() {
		data := make([]byte, t.Bytes)
		if err := f.ReadTensor(t.Name, data); err != nil {
			log.Fatal(err)
		}
		fmt.Println(filepath.Base(f.Path()), t.Name, t.DType, t.Shape, data)
	}

	_, err = safetensors.Open(filepath.Join(dir, "model.safetensors.index.json"))
	fmt.Println(errors.Is(err, safetensors.ErrBadHeader))
	// Output:
	// model-00001-of-00002.safetensors embed U8 [2 3] [1 2 3 4 5 6]
	// model-00002-of-00002.safetensors bias U8 [2] [7 8]
	// true
}
