package torch_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// recovered is what a server puts around its handlers: whatever a request does, it gets an answer and
// the process stays. An error of tensor math (a shape that does not fit, no memory) is the request's
// own; any other panic is a bug of the program.
func recovered(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch p := recover().(type) {
			case nil:
			case *torch.Error:
				code := http.StatusInternalServerError
				if errors.Is(p, torch.ErrOutOfMemory) {
					code = http.StatusServiceUnavailable
				}
				http.Error(w, p.Error(), code)
			default:
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next(w, r)
	}
}

func TestServerSurvivesItsRequests(t *testing.T) {
	weight := torch.Ones([]int{3, 4})
	defer weight.Close()
	before := torch.LiveTensors()
	mux := http.NewServeMux()
	mux.HandleFunc("/sum", recovered(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscan(r.FormValue("n"), &n); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		sum := torch.InferenceOf(func() float32 {
			return torch.Item[float32](torch.Ones([]int{2, n}).MatMul(weight).Sum())
		})
		fmt.Fprint(w, sum)
	}))
	mux.HandleFunc("/panic", recovered(func(http.ResponseWriter, *http.Request) {
		torch.Inference(func() {
			torch.Ones([]int{100})
			var none []int
			none[3] = 1
		})
	}))
	mux.HandleFunc("/hook", recovered(func(http.ResponseWriter, *http.Request) {
		torch.Scope(func() {
			x := torch.Ones([]int{2}).SetRequiresGrad(true)
			x.RegisterHook(func(*torch.Tensor) *torch.Tensor { panic("in the engine") })
			x.Sum().Backward()
		})
	}))
	server := httptest.NewServer(mux)
	defer server.Close()
	get := func(path string) (int, string) {
		response, err := server.Client().Get(server.URL + path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return 0, ""
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response.StatusCode, strings.TrimSpace(string(body))
	}
	for _, c := range []struct {
		path string
		code int
		body string
	}{
		{"/sum?n=3", 200, "24"},
		{"/sum?n=5", 500, "mat1 and mat2 shapes cannot be multiplied (2x5 and 3x4): (2, 5) x (3, 4)"},
		{"/sum?n=-1", 500, "ones: "},
		{"/sum?n=1125899906842624", 503, "can't allocate memory"},
		{"/sum?n=x", 400, ""},
		{"/panic", 500, "internal error"},
		{"/hook", 500, "backward: in a hook: in the engine"},
	} {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				code, body := get(c.path)
				if code != c.code || !strings.Contains(body, c.body) {
					t.Errorf("%s: %d %q, expected %d %q", c.path, code, body, c.code, c.body)
				}
				if code, body := get("/sum?n=3"); code != 200 || body != "24" {
					t.Errorf("after %s: %d %q", c.path, code, body)
				}
			})
		}
		wg.Wait()
	}
	require.Equal(t, before, torch.LiveTensors())
}
