package pool_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host"
	"cairn/toolstack/pool"
	"cairn/toolstack/wire/wiretest"
)

// stack is the API of a pool of one.
type stack struct {
	*wiretest.Server
	dir  string
	pool api.PoolRef
	host api.HostRef
	m    *pool.Manager
}

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{dir: t.TempDir(), pool: api.NewRef[api.Pool](), host: api.NewRef[api.Host]()}
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		must(t, d.Update(t.Context(), func(tx *db.Tx) error {
			p := api.NewPool()
			p.UUID, p.Master = api.NewUUID(), s.host
			db.InsertAs(tx, s.pool, p)
			db.InsertAs(tx, s.host, api.NewHost())
			return nil
		}))
		s.m = s.open(d)
		s.m.Register(r)
	})
	return s
}

func (s *stack) open(d *db.DB) *pool.Manager {
	m, err := pool.New(pool.Config{DB: d, Dir: s.dir, ThisHost: func() api.HostRef { return s.host }})
	if err != nil {
		panic(err)
	}
	return m
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stack) row() *api.Pool {
	s.T.Helper()
	p, err := db.Get(s.DB.Snapshot(), s.pool)
	must(s.T, err)
	return p
}

func (s *stack) change(change func(*api.Pool)) {
	s.T.Helper()
	must(s.T, s.DB.Update(s.T.Context(), func(tx *db.Tx) error {
		p, err := db.Edit(tx, s.pool)
		if err == nil {
			change(p)
		}
		return err
	}))
}

// refusal is a call that must be answered with an error and change nothing.
type refusal struct {
	method string
	args   []any
	want   *api.Error
}

func (s *stack) refused(refusals ...refusal) {
	s.T.Helper()
	for _, r := range refusals {
		before := s.row()
		_, err := s.Call(r.method, r.args...)
		var e *api.Error
		if !errors.As(err, &e) || e.Code != r.want.Code || !slices.Equal(e.Params, r.want.Params) {
			s.T.Errorf("%s(%.80v): got %v, want %v", r.method, r.args, err, r.want)
		}
		if s.row() != before {
			s.T.Errorf("%s(%.80v) was refused and has written", r.method, r.args)
		}
	}
}

func TestSettings(t *testing.T) {
	s := newStack(t)
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for _, tt := range []struct {
		method string
		args   []any
		holds  func(*api.Pool) bool
	}{
		{"pool.set_local_auth_max_threads", []any{12}, func(p *api.Pool) bool { return p.LocalAuthMaxThreads == 12 }},
		{"pool.set_ext_auth_max_threads", []any{3}, func(p *api.Pool) bool { return p.ExtAuthMaxThreads == 3 }},
		{"pool.set_ext_auth_cache_enabled", []any{false}, func(p *api.Pool) bool { return !p.ExtAuthCacheEnabled }},
		{"pool.set_ext_auth_cache_size", []any{70}, func(p *api.Pool) bool { return p.ExtAuthCacheSize == 70 }},
		{"pool.set_ext_auth_cache_expiry", []any{60}, func(p *api.Pool) bool { return p.ExtAuthCacheExpiry == 60 }},
		{"pool.set_uefi_certificates", []any{"QUFB"}, func(p *api.Pool) bool { return p.UEFICertificates == "QUFB" }},
		{"pool.set_custom_uefi_certificates", []any{"QkJC"}, func(p *api.Pool) bool { return p.CustomUEFICertificates == "QkJC" }},
		{"pool.set_telemetry_next_collection", []any{soon.Format(api.TimeLayout)}, func(p *api.Pool) bool { return p.TelemetryNextCollection.Equal(soon) }},
		{"pool.add_to_guest_agent_config", []any{"k", "v"}, func(p *api.Pool) bool { return p.GuestAgentConfig["k"] == "v" }},
		{"pool.remove_from_guest_agent_config", []any{"k"}, func(p *api.Pool) bool { return len(p.GuestAgentConfig) == 0 }},
		{"pool.remove_from_guest_agent_config", []any{"never"}, func(p *api.Pool) bool { return len(p.GuestAgentConfig) == 0 }},
		{"pool.configure_update_sync", []any{"weekly", 6}, func(p *api.Pool) bool {
			return p.UpdateSyncDay == 6 && p.UpdateSyncFrequency == api.UpdateSyncFrequencyWeekly
		}},
		{"pool.configure_update_sync", []any{"daily", 0}, func(p *api.Pool) bool {
			return p.UpdateSyncDay == 0 && p.UpdateSyncFrequency == api.UpdateSyncFrequencyDaily
		}},
		{"pool.set_ha_host_failures_to_tolerate", []any{2}, func(p *api.Pool) bool { return p.HAHostFailuresToTolerate == 2 }},
		{"pool.apply_edition", []any{host.Edition}, func(p *api.Pool) bool { return p.Restrictions["restrict_pooling"] == "false" }},
		{"pool.set_https_only", []any{true}, func(*api.Pool) bool { return true }},
		{"pool.disable_ssl_legacy", nil, func(*api.Pool) bool { return true }},
		{"pool.disable_ssh", nil, func(*api.Pool) bool { return true }},
	} {
		s.Must(nil, tt.method, append([]any{s.pool}, tt.args...)...)
		if !tt.holds(s.row()) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.args, s.row())
		}
	}
	s.Covers("pool.set_local_auth_max_threads", "pool.set_ext_auth_max_threads", "pool.set_ext_auth_cache_enabled",
		"pool.set_ext_auth_cache_size", "pool.set_ext_auth_cache_expiry", "pool.set_uefi_certificates",
		"pool.set_custom_uefi_certificates", "pool.set_telemetry_next_collection", "pool.add_to_guest_agent_config",
		"pool.remove_from_guest_agent_config", "pool.configure_update_sync", "pool.set_ha_host_failures_to_tolerate",
		"pool.apply_edition")
	if h, err := db.Get(s.DB.Snapshot(), s.host); err != nil || h.Edition != host.Edition {
		t.Errorf("the host's edition is %q, %v", h.Edition, err)
	}
}

func TestSettingsRefused(t *testing.T) {
	s := newStack(t)
	s.change(func(p *api.Pool) { p.GuestAgentConfig = map[string]string{"k": "v"} })
	late := time.Now().Add(1000 * 24 * time.Hour).UTC().Format(api.TimeLayout)
	range1024 := "must be from 1 to 1024"
	const nowhere = "OpaqueRef:nowhere"
	s.refused([]refusal{
		{"pool.set_local_auth_max_threads", []any{s.pool, 0}, api.ErrValueNotSupported("local_auth_max_threads", "0", range1024)},
		{"pool.set_ext_auth_max_threads", []any{s.pool, 1025}, api.ErrValueNotSupported("ext_auth_max_threads", "1025", range1024)},
		{"pool.set_ext_auth_cache_size", []any{s.pool, 0}, api.ErrValueNotSupported("ext_auth_cache_size", "0", "must be from 1 to 1048576")},
		{"pool.set_ext_auth_cache_expiry", []any{s.pool, -1}, api.ErrValueNotSupported("ext_auth_cache_expiry", "-1", "must be from 1 to 2147483648")},
		{"pool.set_uefi_certificates", []any{s.pool, "?"}, api.ErrInvalidValue("uefi_certificates", "not base64")},
		{"pool.set_custom_uefi_certificates", []any{s.pool, "A"}, api.ErrInvalidValue("custom_uefi_certificates", "not base64")},
		{"pool.set_telemetry_next_collection", []any{s.pool, late}, api.ErrTelemetryNextCollectionTooLate(late)},
		{"pool.add_to_guest_agent_config", []any{s.pool, "k", "w"}, api.ErrMapDuplicateKey("pool", "guest_agent_config", s.pool.String(), "k")},
		{"pool.add_to_guest_agent_config", []any{s.pool, "", "w"}, api.ErrInvalidValue("key", "")},
		{"pool.configure_update_sync", []any{s.pool, "weekly", 7}, api.ErrInvalidUpdateSyncDay("7")},
		{"pool.configure_update_sync", []any{s.pool, "daily", 1}, api.ErrInvalidUpdateSyncDay("1")},
		{"pool.set_ha_host_failures_to_tolerate", []any{s.pool, -1}, api.ErrInvalidValue("ha_host_failures_to_tolerate", "-1")},
		{"pool.apply_edition", []any{s.pool, "premium"}, api.ErrInvalidEdition("premium")},
		{"pool.set_https_only", []any{s.pool, false}, api.ErrValueNotSupported("https_only", "false", "the API is served over TLS only")},
		{"pool.set_ext_auth_cache_size", []any{nowhere, 5}, api.ErrHandleInvalid("pool", nowhere)},
		{"pool.ha_failover_plan_exists", []any{-1}, api.ErrInvalidValue("n", "-1")},
		{"pool.ha_compute_hypothetical_max_host_failures_to_tolerate", []any{map[string]string{nowhere: "restart"}}, api.ErrHandleInvalid("VM", nowhere)},
		{"pool.designate_new_master", []any{nowhere}, api.ErrHandleInvalid("host", nowhere)},
	}...)
}

func TestTelemetryIdentity(t *testing.T) {
	s := newStack(t)
	var values []string
	for range 2 {
		s.Must(nil, "pool.reset_telemetry_uuid", s.pool)
		secret, err := db.Get(s.DB.Snapshot(), s.row().TelemetryUUID)
		must(t, err)
		values = append(values, secret.Value)
	}
	if values[0] == values[1] || len(values[0]) != 36 {
		t.Errorf("identities %v", values)
	}
	secrets := 0
	for range db.All[api.Secret](s.DB.Snapshot()) {
		secrets++
	}
	if secrets != 1 {
		t.Errorf("%d secrets are left", secrets)
	}
	s.Covers("pool.reset_telemetry_uuid")
}

func TestSmallAnswers(t *testing.T) {
	s := newStack(t)
	other := api.NewRef[api.Host]()
	vm := api.NewRef[api.VM]()
	must(t, s.DB.Update(t.Context(), func(tx *db.Tx) error { db.InsertAs(tx, vm, api.NewVM()); return nil }))
	s.change(func(p *api.Pool) { p.WLBURL, p.WLBEnabled = "x", true })
	for _, tt := range []struct {
		method string
		args   []any
		want   string
	}{
		{"pool.has_extension", []any{s.pool, "x"}, "false"},
		{"pool.get_license_state", []any{s.pool}, `{"edition":"free","expiry":"never"}`},
		{"pool.is_slave", []any{s.host}, "false"},
		{"pool.recover_slaves", nil, "[]"},
		{"pool.ha_failover_plan_exists", []any{0}, "true"},
		{"pool.ha_failover_plan_exists", []any{1}, "false"},
		{"pool.ha_compute_max_host_failures_to_tolerate", nil, "0"},
		{"pool.ha_compute_hypothetical_max_host_failures_to_tolerate", []any{map[string]string{vm.String(): "restart"}}, "0"},
		{"pool.designate_new_master", []any{s.host}, `""`},
		{"pool.deconfigure_wlb", nil, `""`},
		{"pool.enable_tls_verification", nil, `""`},
	} {
		if got, err := s.Call(tt.method, tt.args...); err != nil || string(got) != tt.want {
			t.Errorf("%s: got %s, %v; want %s", tt.method, got, err, tt.want)
		}
		s.Covers(tt.method)
	}
	if p := s.row(); p.Master != s.host || p.WLBEnabled || p.WLBURL != "" || !p.TLSVerificationEnabled {
		t.Errorf("pool %+v", p)
	}
	// What needs a plan or a second host's help is not claimed with one more host.
	must(t, s.DB.Update(t.Context(), func(tx *db.Tx) error { db.InsertAs(tx, other, api.NewHost()); return nil }))
	if got, err := s.Call("pool.is_slave", other); err != nil || string(got) != "true" {
		t.Errorf("the other host: %s, %v", got, err)
	}
	for method, args := range map[string][]any{
		"pool.ha_failover_plan_exists": {1}, "pool.recover_slaves": nil, "pool.designate_new_master": {other},
		"pool.ha_compute_max_host_failures_to_tolerate": nil,
	} {
		s.refused(refusal{method, args, api.ErrNotImplemented(method)})
	}
}

func TestRepositories(t *testing.T) {
	s := newStack(t)
	var remote, bundle string
	s.Must(&remote, "Repository.introduce", "base", "d", "https://updates.example/x", "https://updates.example/src", true, "key.pub")
	s.Must(&bundle, "Repository.introduce_bundle", "bundle", "")
	r, err := db.Get(s.DB.Snapshot(), api.RepositoryRef(remote))
	if err != nil || r.BinaryURL != "https://updates.example/x" || !r.Update || r.GpgkeyPath != "key.pub" || r.Origin != api.OriginRemote {
		t.Errorf("made %+v, %v", r, err)
	}
	s.Must(nil, "Repository.set_gpgkey_path", remote, "")
	if r, err = db.Get(s.DB.Snapshot(), api.RepositoryRef(remote)); err != nil || r.GpgkeyPath != "" {
		t.Errorf("changed %+v, %v", r, err)
	}
	s.refused([]refusal{
		{"Repository.introduce", []any{"b", "", "ftp://x", "https://x", true}, api.ErrInvalidBaseURL("ftp://x")},
		{"Repository.introduce", []any{"b", "", "https://x", "nonsense", true}, api.ErrInvalidBaseURL("nonsense")},
		{"Repository.introduce", []any{"b", "", "https://x", "https://x", true, "../key"}, api.ErrInvalidGpgkeyPath("../key")},
		{"Repository.introduce", []any{"base", "", "https://x", "https://x", true}, api.ErrRepositoryAlreadyExists(remote)},
		{"Repository.introduce_bundle", []any{"other", ""}, api.ErrBundleRepositoryAlreadyExists(bundle)},
		{"Repository.introduce_remote_pool", []any{"p", "", "https://x", "no"}, api.ErrCertificateCorrupt("p")},
		{"Repository.set_gpgkey_path", []any{remote, "a/b"}, api.ErrInvalidGpgkeyPath("a/b")},
		{"pool.set_update_sync_enabled", []any{s.pool, true}, api.ErrNoRepositoriesConfigured()},
		{"pool.add_repository", []any{s.pool, "OpaqueRef:x"}, api.ErrHandleInvalid("Repository", "OpaqueRef:x")},
	}...)
	s.change(func(p *api.Pool) { p.LastUpdateSync = time.Now() })
	s.Must(nil, "pool.add_repository", s.pool, remote)
	if p := s.row(); len(p.Repositories) != 1 || !p.LastUpdateSync.IsZero() {
		t.Errorf("pool %+v", p)
	}
	s.Must(nil, "pool.set_update_sync_enabled", s.pool, true)
	if !s.row().UpdateSyncEnabled {
		t.Error("synchronization is off")
	}
	s.refused(refusal{"Repository.forget", []any{remote}, api.ErrRepositoryIsInUse()})
	s.Must(nil, "pool.set_repositories", s.pool, []string{bundle})
	if p := s.row(); !slices.Equal(p.Repositories, []api.RepositoryRef{api.RepositoryRef(bundle)}) || p.UpdateSyncEnabled {
		t.Errorf("pool %+v", p)
	}
	s.refused(refusal{"pool.set_update_sync_enabled", []any{s.pool, true}, api.ErrCanNotPeriodicSyncUpdates()})
	s.Must(nil, "pool.remove_repository", s.pool, bundle)
	if p := s.row(); len(p.Repositories) != 0 {
		t.Errorf("pool %+v", p)
	}
	s.Must(nil, "Repository.forget", remote)
	if _, err := db.Get(s.DB.Snapshot(), api.RepositoryRef(remote)); err == nil {
		t.Error("the repository is not forgotten")
	}
	s.Covers("Repository.introduce", "Repository.introduce_bundle", "Repository.set_gpgkey_path", "Repository.forget",
		"pool.add_repository", "pool.remove_repository", "pool.set_repositories", "pool.set_update_sync_enabled")
}

func TestRepositoryProxy(t *testing.T) {
	s := newStack(t)
	s.Must(nil, "pool.configure_repository_proxy", s.pool, "http://proxy.example:3128", "me", "hidden")
	p := s.row()
	secret, err := db.Get(s.DB.Snapshot(), p.RepositoryProxyPassword)
	if err != nil || secret.Value != "hidden" || p.RepositoryProxyURL != "http://proxy.example:3128" || p.RepositoryProxyUsername != "me" {
		t.Errorf("proxy %+v, %v", p, err)
	}
	s.refused([]refusal{
		{"pool.configure_repository_proxy", []any{s.pool, "proxy", "", ""}, api.ErrInvalidRepositoryProxyURL("proxy")},
		{"pool.configure_repository_proxy", []any{s.pool, "http://p", "me", ""}, api.ErrInvalidRepositoryProxyCredential()},
		{"pool.configure_repository_proxy", []any{s.pool, "http://p", "", "x"}, api.ErrInvalidRepositoryProxyCredential()},
	}...)
	s.Must(nil, "pool.disable_repository_proxy", s.pool)
	if p := s.row(); p.RepositoryProxyURL != "" || p.RepositoryProxyUsername != "" || !p.RepositoryProxyPassword.IsNull() {
		t.Errorf("proxy %+v", p)
	}
	for range db.All[api.Secret](s.DB.Snapshot()) {
		t.Error("the password outlives its use")
	}
	s.Covers("pool.configure_repository_proxy", "pool.disable_repository_proxy")
}
