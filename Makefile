# What a person types; each target does what it needs of the others. The rest is plain go.

GO ?= go
MODEL := build/models/all-MiniLM-L6-v2
CLANG_FORMAT_VERSION := 20.1.8
CLANG_FORMAT := build/tools/clang-format-$(CLANG_FORMAT_VERSION)
CXX_SOURCES := $(wildcard cgo/*.c cgo/*.h cgo/shim/*.cpp cgo/shim/*.hpp cgo/shim/*.h cgo/shim/*/*.cpp)

# Packages that need no libtorch, and those for the slow lanes.
LEAVES := ./internal/... ./third_party ./pretrained/hub/... ./pretrained/safetensors/... ./pretrained/pickle/... ./pretrained/gguf/... ./pretrained/checkpoint/... ./pretrained/tokenizer/...
RACE := ./internal/... ./cgo/... ./torch/... ./pretrained/...
ASAN := ./cgo/... ./torch/...
# The oldest supported libtorch, and the packages and tests that run on it, too.
OLDEST := 2.11.0
SMOKE := torch torch/nn torch/optim pretrained/models/bert
SMOKE_TESTS := ^Test(Add|ErrorsAreTyped|Scope.*|BackwardAndHooks|FromBlob.*|EveryElementType|Seeds.*|At|SetAt|Generated.*|OpInfo|Function.*|Checkpoint.*|SavedTensor.*|Anomaly.*|ErrorFromADeepHook|FullBackwardHooks.*|Linear|Attention|LayerNorm|ReferenceCases|StepsByHand|StateFiles)$$

.PHONY: all build setup model demo test smoke leaves race asan soak fuzz bench generate lint fmt fmt-check vet clean

all: build

build:
	$(GO) build -o bin/torchgo ./cmd/torchgo

# libtorch and the shim, in the user cache (TORCHGO_CACHE moves it). Does nothing if they are there.
setup:
	./build.sh

# The checkpoints of the demo and of some tests, below build/.
model:
	$(GO) run ./tools/fetchmodel all-MiniLM-L6-v2 SmolLM2-135M-Instruct-GGUF

demo: setup model
	$(GO) run ./examples/similarity $(MODEL)

test: setup model
	$(GO) test ./...

# One test binary a package, built once, runs on the default libtorch and on the oldest.
smoke: setup
	bin/torchgo setup --version $(OLDEST)
	bin/torchgo setup
	@for p in $(SMOKE); do \
		$(GO) test -c -o build/smoke/$$(echo $$p | tr / _).test ./$$p || exit 1; \
	done
	@for version in "" $(OLDEST)-cpu; do for p in $(SMOKE); do \
		echo "smoke: $$p on libtorch $${version:-by default}"; \
		bin=$$PWD/build/smoke/$$(echo $$p | tr / _).test; \
		out=$$(cd $$p && TORCHGO_LIBTORCH=$$version $$bin -test.run '$(SMOKE_TESTS)' -test.v 2>&1) || { echo "$$out"; exit 1; }; \
		echo "$$out" | grep -q '^--- PASS: Test' || { echo "$$out"; echo "no smoke test ran in $$p"; exit 1; }; \
	done; done

# What works without libtorch and without cgo.
leaves:
	CGO_ENABLED=0 $(GO) test $(LEAVES)

race: setup
	$(GO) test -race -short -count=1 $(RACE)

# The sanitizer in the shim and in the Go program. libstdc++ has to be in the program itself, or the
# first exception ends it.
asan: export TORCHGO_SHIM_CXXFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address
asan: export CGO_LDFLAGS := -Wl,--no-as-needed -lstdc++
asan: export ASAN_OPTIONS := detect_leaks=1:allocator_may_return_null=1
asan: setup
	$(GO) test -asan -short -count=1 $(ASAN)

# Long runs, each in a process of its own: docs/reliability.md. SOAK="close scopes" chooses, SOAK_FLAGS=-race
# adds the race detector.
SOAK_MINUTES := 10
SOAK :=
SOAK_FLAGS :=
soak: setup
	$(GO) run $(SOAK_FLAGS) ./tools/soak -minutes $(SOAK_MINUTES) $(SOAK)

# Every fuzz target: FUZZ_SECONDS for those that read weights, 10 s for others. FUZZ="FuzzGGUF FuzzZip" chooses.
FUZZ_SECONDS := 60
FUZZ :=
fuzz: setup
	$(GO) run ./tools/fuzz -seconds $(FUZZ_SECONDS) $(FUZZ)

bench: setup model
	TORCHGO_BENCH_MODEL=$(MODEL) $(GO) run ./bench

generate:
	$(GO) generate ./...

lint: vet fmt-check
	$(GO) tool -modfile=tools/lint/go.mod staticcheck ./...

# On every platform that the Go code is meant for; without cgo there is no libtorch.
vet:
	$(GO) vet ./...
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./...

fmt: $(CLANG_FORMAT)
	gofmt -w $$(git ls-files '*.go')
	$(CLANG_FORMAT)/run -i $(CXX_SOURCES)

fmt-check: $(CLANG_FORMAT)
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt: $$bad"; exit 1; fi
	$(CLANG_FORMAT)/run --dry-run --Werror $(CXX_SOURCES)

# clang-format from the package registry, in a folder of its own.
$(CLANG_FORMAT):
	@mkdir -p build/tools
	rm -rf $@.tmp
	pip install --quiet --disable-pip-version-check --target $@.tmp clang-format==$(CLANG_FORMAT_VERSION)
	ln -s clang_format/data/bin/clang-format $@.tmp/run
	mv $@.tmp $@

clean:
	rm -rf bin build
