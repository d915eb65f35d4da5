//go:build lab

package ldap

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"cairn/image/debian"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session"
	"cairn/toolstack/session/rbac"
	"cairn/toolstack/wire/wiretest"
)

// These tests run Debian's slapd on loopback.

const (
	base    = "dc=example,dc=com"
	admin   = "cn=admin," + base
	secret  = "admin's password"
	alicePW = "alice's password"
)

const slapdConf = `
include {{schema}}/core.schema
include {{schema}}/cosine.schema
include {{schema}}/inetorgperson.schema
include {{schema}}/nis.schema
modulepath {{modules}}
moduleload back_mdb
moduleload memberof
moduleload ppolicy
pidfile {{dir}}/slapd.pid
TLSCACertificateFile {{dir}}/ca.pem
TLSCertificateFile {{dir}}/host.pem
TLSCertificateKeyFile {{dir}}/host.key
database mdb
suffix "dc=example,dc=com"
directory {{dir}}/db
maxsize 16777216
rootdn "cn=admin,dc=example,dc=com"
rootpw "admin's password"
access to attrs=userPassword by anonymous auth by * none
access to * by * read
overlay memberof
overlay ppolicy
`

// entries are what the directory holds. The groups below ou=far are outside of
// what is searched; only memberOf leads there.
var entries = []struct {
	dn         string
	attributes map[string][]string
}{
	{base, map[string][]string{"objectClass": {"dcObject", "organization"}, "dc": {"example"}, "o": {"Example"}}},
	{"ou=people," + base, map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"people"}}},
	{"ou=groups," + base, map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"groups"}}},
	{"ou=far," + base, map[string][]string{"objectClass": {"organizationalUnit"}, "ou": {"far"}}},
	person("alice", alicePW), person("bob", "bob's password"), person("carol (x)*", "carol's password"),
	group("cn=admins,ou=groups,"+base, "cn=operators,ou=groups,"+base),
	group("cn=operators,ou=groups,"+base, "uid=alice,ou=people,"+base),
	group("cn=circle,ou=groups,"+base, "cn=circle,ou=groups,"+base, "uid=alice,ou=people,"+base),
	group("cn=distant,ou=far,"+base, "uid=alice,ou=people,"+base),
	{"cn=unix,ou=groups," + base, map[string][]string{
		"objectClass": {"posixGroup"}, "cn": {"unix"}, "gidNumber": {"100"}, "memberUid": {"alice"},
	}},
}

type entry = struct {
	dn         string
	attributes map[string][]string
}

func person(uid, password string) entry {
	return entry{"uid=" + goldap.EscapeDN(uid) + ",ou=people," + base, map[string][]string{
		"objectClass": {"inetOrgPerson", "posixAccount", "shadowAccount"}, "uid": {uid}, "cn": {strings.ToUpper(uid)}, "sn": {"x"},
		"uidNumber": {"1000"}, "gidNumber": {"100"}, "homeDirectory": {"/"}, "userPassword": {password},
	}}
}

func group(dn string, members ...string) entry {
	cn, _, _ := strings.Cut(strings.TrimPrefix(dn, "cn="), ",")
	return entry{dn, map[string][]string{"objectClass": {"groupOfNames"}, "cn": {cn}, "member": members}}
}

// server is a running slapd.
type server struct {
	dir, ca     string
	ldaps, ldap string // host:port
	cmd         *exec.Cmd
}

func startSlapd(t *testing.T) *server {
	t.Helper()
	tree, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), ldaps: freePort(t), ldap: freePort(t)}
	s.ca = certificates(t, s.dir)
	conf := strings.NewReplacer("{{dir}}", s.dir, "{{schema}}", tree.Path("/etc/ldap/schema"), "{{modules}}", tree.Path("/usr/lib/ldap")).Replace(slapdConf)
	write(t, s.dir, "slapd.conf", []byte(conf))
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.cmd = tree.Command(context.Background(), "slapd", "-d", "0", "-f", filepath.Join(s.dir, "slapd.conf"),
		"-h", fmt.Sprintf("ldaps://%s/ ldap://%s/", s.ldaps, s.ldap))
	var out bytes.Buffer
	s.cmd.Stdout, s.cmd.Stderr = &out, &out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan struct{})
	go func() {
		s.cmd.Wait()
		close(died)
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		<-died
		if t.Failed() {
			t.Logf("slapd: %s", out.String())
		}
	})
	s.fill(t, died)
	return s
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// certificates writes a CA and a certificate for 127.0.0.1, and returns the CA.
func certificates(t *testing.T, dir string) string {
	t.Helper()
	make := func(parent *x509.Certificate, signer *ecdsa.PrivateKey, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if parent == nil {
			parent, signer = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert, key
	}
	template := func(serial int64, name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	caTemplate := template(1, "test CA")
	caTemplate.IsCA, caTemplate.BasicConstraintsValid, caTemplate.KeyUsage = true, true, x509.KeyUsageCertSign
	ca, caKey := make(nil, nil, caTemplate)
	hostTemplate := template(2, "127.0.0.1")
	hostTemplate.IPAddresses, hostTemplate.KeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, x509.KeyUsageDigitalSignature
	host, hostKey := make(ca, caKey, hostTemplate)
	keyDER, err := x509.MarshalPKCS8PrivateKey(hostKey)
	if err != nil {
		t.Fatal(err)
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	write(t, dir, "ca.pem", caPEM)
	write(t, dir, "host.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: host.Raw}))
	write(t, dir, "host.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return string(caPEM)
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// manage connects as the administrator of the directory.
func (s *server) manage() (*goldap.Conn, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.ca))
	c, err := goldap.DialURL("ldaps://"+s.ldaps, goldap.DialWithTLSConfig(&tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}))
	if err != nil {
		return nil, err
	}
	if err := c.Bind(admin, secret); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// fill waits until slapd answers and adds the entries.
func (s *server) fill(t *testing.T, died <-chan struct{}) {
	t.Helper()
	c, err := s.manage()
	for deadline := time.Now().Add(30 * time.Second); err != nil; c, err = s.manage() {
		select {
		case <-died:
			t.Fatalf("slapd ended; the last connection: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	for _, e := range entries {
		add := goldap.NewAddRequest(e.dn, nil)
		for name, values := range e.attributes {
			add.Attribute(name, values)
		}
		if err := c.Add(add); err != nil {
			t.Fatalf("%s: %v", e.dn, err)
		}
	}
}

func (s *server) settings(kv ...string) map[string]string {
	m := map[string]string{
		keyURL: "ldaps://" + s.ldaps, keyCA: s.ca, keyBase: "ou=people," + base, keyGroups: "ou=groups," + base,
		keyBindDN: admin, keyPassword: secret,
	}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

func (s *server) open(t *testing.T, kv ...string) session.External {
	t.Helper()
	e, err := Open(t.Context(), "example.com", s.settings(kv...))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// set changes an attribute of a user; no values take it away.
func (s *server) set(t *testing.T, user, attribute string, values ...string) {
	t.Helper()
	c, err := s.manage()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	change := goldap.NewModifyRequest("uid="+user+",ou=people,"+base, nil)
	change.Replace(attribute, values)
	if err := c.Modify(change); err != nil {
		t.Fatal(err)
	}
}

func TestSlapdSmoke(t *testing.T) {
	s := startSlapd(t)
	t.Run("settings", s.testSettings)
	for _, url := range []string{"ldaps://" + s.ldaps, "ldap://" + s.ldap, "ldaps://127.0.0.1:1 ldaps://" + s.ldaps} {
		t.Run(strings.NewReplacer("/", "", ":", "-").Replace(url), func(t *testing.T) {
			d := s.open(t, keyURL, url)
			testAuthenticate(t, d)
			testLookup(t, d)
			testGroups(t, d)
		})
	}
	t.Run("pool", s.testPool)
	t.Run("hanging", s.testHanging)
}

func (s *server) testSettings(t *testing.T) {
	other := certificates(t, t.TempDir())
	for _, c := range []struct {
		settings map[string]string
		want     error
	}{
		{s.settings(keyCA, other), session.ErrTrust},
		{s.settings(keyCA, other, keyURL, "ldap://"+s.ldap), session.ErrTrust},
		{s.settings(keyPassword, "wrong"), session.ErrCredentials},
		{s.settings(keyBase, "ou=nowhere,"+base), session.ErrSettings},
		{s.settings(keyURL, "ldaps://127.0.0.1:1"), syscall.ECONNREFUSED},
	} {
		if _, err := Open(t.Context(), "example.com", c.settings); !errors.Is(err, c.want) {
			t.Errorf("%v: %v, want %v", c.settings, err, c.want)
		}
	}
}

func testAuthenticate(t *testing.T, d session.External) {
	id, err := d.Authenticate(t.Context(), "alice", alicePW)
	if err != nil || len(id) != 36 {
		t.Fatalf("alice is %q, %v", id, err)
	}
	for _, name := range []string{"Alice", "alice@example.com", `EXAMPLE.com\alice`} {
		if again, err := d.Authenticate(t.Context(), name, alicePW); err != nil || again != id {
			t.Errorf("%s is %q, %v", name, again, err)
		}
	}
	if _, err := d.Authenticate(t.Context(), "carol (x)*", "carol's password"); err != nil {
		t.Errorf("a name of special characters: %v", err)
	}
	for _, c := range [][2]string{{"alice", "wrong"}, {"alice", ""}, {"", ""}} {
		if _, err := d.Authenticate(t.Context(), c[0], c[1]); !errors.Is(err, session.ErrCredentials) {
			t.Errorf("%q with %q: %v", c[0], c[1], err)
		}
	}
	for _, name := range []string{"nobody", "*", "ali*", "alice)(uid=*", "*)(objectClass=*", "admins", "\x00"} {
		if id, err := d.Authenticate(t.Context(), name, alicePW); !errors.Is(err, session.ErrNoSubject) {
			t.Errorf("%q is %q, %v", name, id, err)
		}
	}
}

func testLookup(t *testing.T, d session.External) {
	for name, isGroup := range map[string]string{"alice": "false", "bob": "false", "admins": "true", "unix": "true"} {
		id, err := d.Lookup(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		about, err := d.Information(t.Context(), id)
		if err != nil || about["subject-name"] != name || about["subject-is-group"] != isGroup || about["subject-sid"] != id {
			t.Errorf("%s is %v, %v", name, about, err)
		}
		for _, key := range []string{session.DisabledKey, session.LockedKey, session.ExpiredKey} {
			if about[key] != "false" {
				t.Errorf("%s of %s is %s", key, name, about[key])
			}
		}
	}
	if id, err := d.Lookup(t.Context(), "nobody"); !errors.Is(err, session.ErrNoSubject) {
		t.Errorf("nobody is %q, %v", id, err)
	}
	for _, id := range []string{"", "*", api.NewUUID()} {
		if about, err := d.Information(t.Context(), id); err == nil {
			t.Errorf("%q is %v", id, about)
		}
	}
}

func testGroups(t *testing.T, d session.External) {
	names := func(user string) []string {
		id, err := d.Lookup(t.Context(), user)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := d.Groups(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, id := range ids {
			if about, err := d.Information(t.Context(), id); err == nil {
				names = append(names, about["subject-name"])
			} else if errors.Is(err, session.ErrNoSubject) { // where users and groups are not searched
				names = append(names, "elsewhere")
			}
		}
		slices.Sort(names)
		return names
	}
	if got := names("alice"); !slices.Equal(got, []string{"admins", "circle", "elsewhere", "operators", "unix"}) {
		t.Errorf("alice is in %v", got)
	}
	if got := names("bob"); len(got) != 0 {
		t.Errorf("bob is in %v", got)
	}
}

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// testPool goes the whole way of a client: external authentication is enabled, a
// group becomes a subject with a role, its members log in and lose their sessions
// when the directory locks them.
func (s *server) testPool(t *testing.T) {
	var pool api.PoolRef
	w := wiretest.New(t, nil)
	w.Directories[Type] = Open
	if err := w.DB.Update(t.Context(), func(tx *db.Tx) error {
		db.InsertAs(tx, w.Host, api.NewHost())
		pool = db.Insert(tx, api.NewPool())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	enable := func(kv ...string) error {
		_, err := w.Call("pool.enable_external_auth", pool.String(), s.settings(kv...), "example.com", Type)
		return err
	}
	for want, kv := range map[string][]string{
		"POOL_AUTH_ENABLE_FAILED_WRONG_CREDENTIALS":     {keyPassword, "wrong"},
		"POOL_AUTH_ENABLE_FAILED_INVALID_TRUSTED_CERTS": {keyCA, certificates(t, t.TempDir())},
		"POOL_AUTH_ENABLE_FAILED_UNAVAILABLE":           {keyURL, "ldaps://127.0.0.1:1"},
		"POOL_AUTH_ENABLE_FAILED":                       {keyBase, "nonsense"},
	} {
		if err := enable(kv...); code(err) != want {
			t.Errorf("%v: %v, want %s", kv, err, want)
		}
	}
	if err := enable(); err != nil {
		t.Fatal(err)
	}
	login := func(user, password string) (*wiretest.Server, error) {
		text, err := w.Raw("session.login_with_password", user, password)
		c := *w
		c.Session = strings.Trim(string(text), `"`)
		return &c, err
	}
	if _, err := login("alice", alicePW); code(err) != "SESSION_AUTHORIZATION_FAILED" {
		t.Errorf("a user who is no subject: %v", err)
	}
	var group, subject string
	w.Must(&group, "auth.get_subject_identifier", "admins")
	w.Must(&subject, "subject.create", map[string]any{"subject_identifier": group, "other_config": map[string]string{"subject-name": "admins"}})
	if _, err := login("alice", alicePW); code(err) != "SESSION_AUTHORIZATION_FAILED" {
		t.Errorf("a user without a role: %v", err)
	}
	w.Must(nil, "subject.add_to_roles", subject, rbac.VMOperator.Ref().String())
	alice, err := login("alice@example.com", alicePW)
	if err != nil {
		t.Fatal(err)
	}
	alice.Must(nil, "VM.get_all")
	if _, err := alice.Call("subject.destroy", subject); code(err) != "RBAC_PERMISSION_DENIED" {
		t.Errorf("a VM operator destroys subjects: %v", err)
	}
	for user, password := range map[string]string{"alice": "wrong", "nobody": "x", "*": alicePW} {
		if _, err := login(user, password); code(err) != "SESSION_AUTHENTICATION_FAILED" {
			t.Errorf("%s with %q: %v", user, password, err)
		}
	}
	if _, err := login("bob", "bob's password"); code(err) != "SESSION_AUTHORIZATION_FAILED" {
		t.Errorf("a user of no group: %v", err)
	}

	w.Sessions.Revalidate(t.Context())
	alice.Must(nil, "VM.get_all")
	for _, c := range []struct{ attribute, value string }{{"pwdAccountLockedTime", "000001010000Z"}, {"shadowExpire", "1"}} {
		s.set(t, "alice", c.attribute, c.value)
		w.Sessions.Revalidate(t.Context())
		if _, err := alice.Call("VM.get_all"); code(err) != "SESSION_INVALID" {
			t.Errorf("after %s: %v", c.attribute, err)
		}
		if _, err := login("alice", alicePW); err == nil {
			t.Errorf("a login after %s", c.attribute)
		}
		s.set(t, "alice", c.attribute)
		if alice, err = login("alice", alicePW); err != nil {
			t.Fatal(err)
		}
	}
	w.Must(nil, "pool.disable_external_auth", pool.String(), map[string]string{})
	if _, err := alice.Call("VM.get_all"); code(err) != "SESSION_INVALID" {
		t.Errorf("after external authentication was disabled: %v", err)
	}
}

// testHanging: a directory that does not answer costs its users a few seconds and
// others nothing.
func (s *server) testHanging(t *testing.T) {
	d := s.open(t)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer s.cmd.Process.Signal(syscall.SIGCONT)
	s.waitUntilStopped(t)
	begun := time.Now()
	_, err := d.Authenticate(t.Context(), "alice", alicePW)
	if took := time.Since(begun); err == nil || errors.Is(err, session.ErrCredentials) || took > 2*timeout+time.Second {
		t.Errorf("a hanging directory answers %v after %v", err, took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun = time.Now()
	if _, err := d.Lookup(ctx, "alice"); err == nil || time.Since(begun) > timeout {
		t.Errorf("a question of 300 ms answers %v after %v", err, time.Since(begun))
	}
}

// waitUntilStopped waits for all of slapd's threads to have stopped.
func (s *server) waitUntilStopped(t *testing.T) {
	t.Helper()
	for range 1000 {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		stopped := 0
		for _, name := range stats {
			if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte(") T ")) {
				stopped++
			}
		}
		if stopped == len(stats) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("slapd does not stop")
}
