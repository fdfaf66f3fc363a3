package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
)

// texts are the sentences of the model benchmarks. Every word is one token of BERT's vocabulary.
type texts struct {
	Same  []string `json:"same"`  // of one length
	Mixed []string `json:"mixed"` // of very different lengths
}

const sentences = 512

var words = strings.Fields(`the of and in to was he is as for on with that it his by at from her she you had
	an were but be this are not my they one which or have him me first all also their has up who out been
	when after there into new two its time would no what about said we over then other so more can if like
	back them only some could where just during before do made school through than now years most world may
	between down well three year while will later city under around did such being used state people part
	know against your many second university both these national film since until way take house music work`)

func makeTexts() texts {
	rnd := rand.New(rand.NewPCG(1, 2)) // the same sentences on each run
	sentence := func(n int) string {
		picked := make([]string, n)
		for i := range picked {
			picked[i] = words[rnd.IntN(len(words))]
		}
		return strings.Join(picked, " ")
	}
	var t texts
	for range sentences {
		t.Same = append(t.Same, sentence(12))
		// Half of them short, a third middling, a few long.
		n := 3 + rnd.IntN(15)
		switch p := rnd.IntN(100); {
		case p >= 85:
			n = 60 + rnd.IntN(140)
		case p >= 50:
			n = 18 + rnd.IntN(42)
		}
		t.Mixed = append(t.Mixed, sentence(n))
	}
	return t
}

func writeTexts(path string) error {
	data, err := json.Marshal(makeTexts())
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}

func readTexts(path string) (t texts, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	return t, json.Unmarshal(data, &t)
}
