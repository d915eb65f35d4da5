package ldap

import (
	"errors"
	"strings"
	"testing"

	goldap "github.com/go-ldap/ldap/v3"

	"cairn/toolstack/session"
)

func TestSettings(t *testing.T) {
	good := map[string]string{keyBase: "dc=example,dc=com"}
	with := func(kv ...string) map[string]string {
		m := map[string]string{}
		for k, v := range good {
			m[k] = v
		}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		settings map[string]string
		wrong    string // part of the error, "" for none
	}{
		{good, ""},
		{with(keyURL, "ldaps://a:636 ldap://b"), ""},
		{with(keyUsers, "uid,mail,sAMAccountName", keyBindDN, "cn=x", keyPassword, "p"), ""},
		{map[string]string{}, "base_dn is missing"},
		{with("tls_reqcert", "never"), `"tls_reqcert" is not known`},
		{with(keyURL, "http://a"), "want ldaps"},
		{with(keyURL, "ldapi:///run/ldapi"), "want ldaps"},
		{with(keyURL, " "), "one to eight"},
		{with(keyURL, strings.Repeat("ldaps://a ", 9)), "one to eight"},
		{with(keyCA, "no certificate"), "holds no certificate"},
		{with(keyUsers, "uid,)(x=*"), "is no attribute"},
		{with(keyID, "entryUUID;x"), "is no attribute"},
		{with(keyBase, "example.com"), "no distinguished name"},
		{with(keyBindDN, "cn=x"), "bind_password is missing"},
	} {
		_, err := parse("example.com", c.settings)
		switch {
		case c.wrong == "" && err != nil:
			t.Errorf("%v: %v", c.settings, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%v: %v, want %q", c.settings, err, c.wrong)
		}
	}
	if _, err := Open(t.Context(), "example.com", map[string]string{}); !errors.Is(err, session.ErrSettings) {
		t.Errorf("wrong settings are %v", err)
	}
	d, err := parse("example.com", good)
	if err != nil || d.urls[0].String() != "ldaps://example.com" || d.groups != "dc=example,dc=com" {
		t.Errorf("the defaults are %+v, %v", d, err)
	}
}

func TestShortNames(t *testing.T) {
	d := &Directory{service: "Example.com"}
	for name, want := range map[string]string{
		"alice": "alice", "alice@example.com": "alice", `EXAMPLE.COM\alice`: "alice",
		"alice@other.com": "alice@other.com", `other\alice`: `other\alice`, "@example.com": "@example.com", "a@b@example.com": "a@b",
	} {
		if got := d.short(name); got != want {
			t.Errorf("%s is short for %s, want %s", got, name, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	d, err := parse("example.com", map[string]string{keyBase: "dc=x"})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(kv ...string) map[string]string {
		attributes := map[string][]string{"cn": {"Alice A"}, "uid": {"alice"}, "objectClass": {"inetOrgPerson"}}
		for i := 0; i < len(kv); i += 2 {
			attributes[kv[i]] = []string{kv[i+1]}
		}
		return d.describe(goldap.NewEntry("uid=alice", attributes), "id")
	}
	for _, c := range []struct {
		about     map[string]string
		key, want string
	}{
		{entry(), "subject-name", "alice"},
		{entry(), "subject-displayname", "Alice A"},
		{entry(), "subject-upn", "alice@example.com"},
		{entry(), "subject-is-group", "false"},
		{entry(), session.DisabledKey, "false"},
		{entry(), session.LockedKey, "false"},
		{entry(), session.ExpiredKey, "false"},
		{entry("objectClass", "groupofnames"), "subject-is-group", "true"},
		{entry("objectClass", "groupOfNames"), "subject-name", "Alice A"},
		{entry("nsAccountLock", "TRUE"), session.DisabledKey, "true"},
		{entry("userAccountControl", "514"), session.DisabledKey, "true"},
		{entry("userAccountControl", "512"), session.DisabledKey, "false"},
		{entry("pwdAccountLockedTime", "000001010000Z"), session.LockedKey, "true"},
		{entry("pwdAccountLockedTime", "20260101000000Z"), session.LockedKey, "false"},
		{entry("shadowExpire", "1"), session.ExpiredKey, "true"},
		{entry("shadowExpire", "-1"), session.ExpiredKey, "false"},
		{entry("shadowExpire", "99999"), session.ExpiredKey, "false"},
		{entry("shadowExpire", "99999999999999"), session.ExpiredKey, "false"},
	} {
		if got := c.about[c.key]; got != c.want {
			t.Errorf("%s is %q, want %q", c.key, got, c.want)
		}
	}
}

// FuzzFilter holds that a name from a client is one value in a filter and
// nothing else, whatever it is.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"alice", "*", "a)(uid=*", `a\`, "\x00", "(|(a=b))", "ä", "a)(|(objectClass=*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		packet, err := goldap.CompileFilter("(&" + isGroup() + anyOf(name, "cn") + ")")
		if err != nil {
			t.Fatal(err)
		}
		or := packet.Children[1]
		if len(packet.Children) != 2 || len(or.Children) != 1 || len(or.Children[0].Children) != 2 {
			t.Fatalf("the name changes the filter's shape: %q", name)
		}
		if or.Children[0].Tag != goldap.FilterEqualityMatch {
			t.Fatalf("%q is compared by %v", name, or.Children[0].Tag)
		}
		if got := or.Children[0].Children[1].Data.String(); got != name {
			t.Fatalf("%q is asked for as %q", name, got)
		}
	})
}

// FuzzSettings: whatever settings say, parsing ends with an error or with a
// directory that is only spoken to over TLS.
func FuzzSettings(f *testing.F) {
	f.Add("ldaps://a", "", "dc=x", "uid")
	f.Add("ldap://[::1]:389 ldaps://b", "-----BEGIN CERTIFICATE-----", "ou=a+b=c,dc=x", "uid,mail")
	f.Fuzz(func(t *testing.T, urls, ca, base, users string) {
		d, err := parse("example.com", map[string]string{keyURL: urls, keyCA: ca, keyBase: base, keyUsers: users})
		if err != nil {
			return
		}
		for _, u := range d.urls {
			if u.Scheme != "ldaps" && u.Scheme != "ldap" || u.Hostname() == "" {
				t.Errorf("url %v", u)
			}
		}
		if d.tls == nil || d.tls.InsecureSkipVerify || len(d.users) == 0 {
			t.Errorf("directory %+v", d)
		}
	})
}
