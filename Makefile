# The front door.  `make help` tells what there is; meson and ninja do the work (meson.build, tools/build).
# Whatever a target needs from the system's packages, tools/deps installs first, where it is missing.

.DEFAULT_GOAL := build/cairn
.PHONY: build/cairn run run-s3 install-local stop-local test bench soak fuzz sim model format lint install clean help

SEEDS ?= 1000
FIRST ?= 1
ROUNDS ?= 10000
SECONDS ?= 600

build/cairn: ## build the program (this is what plain `make` does)
	@tools/deps build
	@tools/build release cairn

run: build/cairn ## serve disks on localhost:10809, kept in a directory of your own; FLAGS='--port 10810' adds flags
	@build/cairn serve $(FLAGS)

install-local: ## install what is needed, and start an S3 on 127.0.0.1:9000; LOCAL_S3=rgw (minio, docker) chooses which
	@tools/deps build
	@tools/local-s3 start $(LOCAL_S3)

stop-local: ## stop that S3; its data is kept, and `make install-local` starts it again
	@tools/local-s3 stop

# Keys in the environment: they shall go before those of a profile that the user may have for AWS.
run-s3: build/cairn ## serve disks on localhost:10809, kept in that S3; FLAGS adds flags
	@NBD_S3_ACCESS_KEY=minioadmin NBD_S3_SECRET_KEY=minioadmin \
		build/cairn serve --s3-endpoint http://127.0.0.1:9000 --s3-bucket nbd-storage $(FLAGS)

test: ## build all variants and run all tests; STEPS='unit sim' runs some of them
	@tools/deps test
	@tools/test $(STEPS)

bench: build/cairn ## measure, side by side with nbdkit and with bare S3 requests
	@tools/deps bench
	@tools/build release bench/coroutine_switch bench/s3_proxy
	@build/bench/coroutine_switch
	@bench/s3_latency.py
	@bench/hotpath.py

soak: build/cairn ## kill the server and check what it kept, ROUNDS=10000 times
	@tools/deps test
	@test/integration/kill_loop.py --rounds $(ROUNDS)

fuzz: ## fuzz each decoder for SECONDS=600
	@tools/deps fuzz
	@tools/fuzz $(SECONDS)

sim: ## simulate whole servers: SEEDS=1000 worlds from FIRST=1 on
	@tools/deps test
	@tools/build release
	@build/test/sim/sim --first $(FIRST) --seeds $(SEEDS)

model: ## search the model of ownership and deletion exhaustively; LARGE=1 the large configurations
	@tools/deps test
	@test/model/run $(if $(LARGE),--large,--jobs 2)

format: ## put all C code into the project's form
	@tools/deps lint
	@find src test bench -name '*.[ch]' -print0 | xargs -0 clang-format -i

lint: ## check form, layers, and what clang-tidy finds
	@tools/deps lint
	@tools/lint

install: build/cairn ## install below PREFIX (/usr/local): program, man page, documents
	@meson configure build -Dprefix=$(or $(PREFIX),/usr/local)
	@meson install -C build

clean: ## remove everything that was built
	rm -rf build build-clang build-asan build-tsan build-fuzz

help: ## show this
	@sed -n 's/^\([a-z0-9/-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | sed 's/^  build.cairn/  all/' | expand -t 18
