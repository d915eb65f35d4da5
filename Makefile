# Everything a developer or CI does with this tree. `make` lists the targets.
# What a machine needs is installed by ci/deps, which does nothing once it is there.

SHELL := /bin/sh
BUILD := .build
GO     = $(shell ci/go)
# Packages of the lab are compiled only with this tag: they need the image and QEMU.
LAB    = $(GO) test -tags lab -count=1 -timeout 30m -v

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: deps bin ## the toolstack alone, in the foreground (LISTEN=, FRESH=1, SIM_HOSTS=, SIM_VMS=)
	@$(GO) run ./ci/dev -go $(GO) -dir $(BUILD)/dev -bin $(BUILD)/bin $(if $(LISTEN),-listen $(LISTEN)) \
	  $(if $(filter-out 0 no,$(FRESH)),-fresh) $(if $(SIM_HOSTS),-sim-hosts $(SIM_HOSTS)) $(if $(SIM_VMS),-sim-vms $(SIM_VMS))

run: deps bin ## boot a host with a KVM guest inside (ONCE=1: prove it and stop)
	@$(GO) run ./ci/cmd/run -image $(BUILD)/image $(if $(filter-out 0 no,$(ONCE)),-once) $(if $(FIRMWARE),-firmware $(FIRMWARE))

test: deps lint unit api-coverage smoke ## everything CI runs

unit: ## unit tests: no root, no network, under a minute
	$(GO) test ./...

lint: ## gofmt, go vet, staticcheck
	@out=$$($$($(GO) env GOROOT)/bin/gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$out" ]; then echo "gofmt: $$out"; exit 1; fi
	$(GO) vet ./... && $(GO) vet -tags lab ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck -tags lab ./...

smoke: image bin ## one lab test per area
	$(LAB) -p 1 -run 'Smoke' ./ci/lab ./image/build ./init/network/... ./toolstack/db ./toolstack/session/external/ldap ./ci/labtest

test-image: image ## lab: the image itself, its programs and its determinism
	$(LAB) ./image/...

test-boot: image bin ## lab: boot chain, PID 1, watchdog, configuration
	$(LAB) -run 'Boot' ./ci/labtest

test-clients: deps ## lab: API clients of others: a Go module, an npm package
	@ci/deps node
	$(LAB) ./ci/clienttest

test-vm: image bin ## lab: guests, their life-cycle and what they survive
	$(LAB) -timeout 90m -p 1 -run 'VM|Libvirt|RealGuest|Dev' ./ci/labtest ./ci/devhost ./ci/dev ./toolstack/cmd/toolstackd

test-net: deps ## lab: management network, bridges and ports in namespaces; guests on a network
	$(LAB) -p 1 ./init/network/... && $(LAB) -run 'Networks' ./ci/dev

test-storage: image bin ## lab: repositories and volumes on real disks, and hostd killed at each step
	$(LAB) -p 1 -run 'Real|Crash|HostdKeeps|Storage' ./init/storage/... ./ci/devhost ./ci/labtest

test-auth: deps ## lab: external authentication against slapd
	$(LAB) ./toolstack/session/external/ldap

chaos-db: ## lab: 1,000 kills and 2,000 power cuts of the database (SEED= repeats a run)
	$(LAB) -timeout 60m -run 'Chaos' ./toolstack/db/...

chaos-coalesce: deps ## lab: 500 kills of a process that merges images, 2,000 crashes in memory (SEED= repeats a run)
	$(GO) test -count=1 -timeout 30m -run 'Crashes' ./toolstack/storage -seeds 2000
	$(LAB) -timeout 60m -run 'CoalesceChaos' ./ci/killtest -runs 500 $(if $(SEED),-seed $(SEED))

chaos-vm: deps ## lab: toolstackd, hostd and libvirtd killed at each step of what is done to a guest (SEED= repeats a run)
	$(LAB) -timeout 60m -run 'GuestChaos' ./ci/dev $(if $(SEED),-seed $(SEED))

bench-boot: image ## boot time and memory beside a stock Debian, into docs/benchmarks.md
	$(GO) run ./ci/bench/boot -image $(BUILD)/image -doc docs/benchmarks.md

bench-api: deps ## the API with 1,000 and 4,000 VMs beside libvirt's list, into docs/benchmarks.md
	$(GO) run ./ci/bench/api -go $(GO) -doc docs/benchmarks.md

bench-vm: deps ## start, snapshot, clone and list beside plain libvirt and qemu-img, into docs/benchmarks.md
	$(GO) run ./ci/bench/vm -go $(GO) -doc docs/benchmarks.md

bench-transfer: deps ## disks out and in, each format, beside cp and qemu-img, into docs/benchmarks.md
	$(GO) run ./ci/bench/transfer -go $(GO) -doc docs/benchmarks.md $(if $(JSON),-json $(JSON))

image: deps ## build the root image, UKI and disk into .build/image
	@$(GO) run ./image/cmd/mkimage -out $(BUILD)/image

bin: deps ## build the command line client
	@CGO_ENABLED=0 $(GO) build -trimpath -o $(BUILD)/bin/xe ./toolstack/cmd/xe

lock: deps ## refresh the locks of packages from the package mirror
	$(GO) run ./image/cmd/debian-tree -refresh
	$(GO) run ./image/cmd/debian-tree -list ci/lab/foreign/packages.list -refresh
	$(GO) run ./image/cmd/debian-tree -list ci/lab/trixie/packages.list -refresh

api-docs: deps ## write the reference of the management API into .build/api-docs
	@$(GO) run ./toolstack/datamodel/cmd/apidocs -out $(BUILD)/api-docs

api-coverage: deps ## count the messages with behaviour, fail when one lost its test (UPDATE=1: rewrite the list)
	@$(GO) run ./toolstack/datamodel/cmd/apicoverage -go $(GO) $(if $(UPDATE),-update)

generate: deps ## regenerate the code derived from the data model
	$(GO) generate ./...

deps: ## install what this machine lacks
	@ci/deps

clean: ## remove build output (caches stay)
	rm -rf $(BUILD) 2>/dev/null || sudo rm -rf $(BUILD)

.PHONY: help run dev test unit lint smoke test-image test-boot test-clients test-vm test-net test-storage test-auth chaos-db chaos-coalesce chaos-vm bench-boot bench-api bench-vm bench-transfer image bin lock api-docs api-coverage generate deps clean
