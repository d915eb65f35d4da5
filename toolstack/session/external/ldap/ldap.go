// Package ldap asks an LDAP directory about users and groups. It is one of the
// directories package session knows.
//
// The directory is only spoken to over TLS: ldaps, or StartTLS for a URL of ldap.
// Each question opens a connection of its own, bound as the configured account,
// and the password of a user is only ever used to bind as that user. Names from
// clients reach the directory as escaped values of a filter, never as part of its
// text. Identifiers are values of an attribute that outlives renaming.
//
// A Directory is immutable and may be used by many goroutines.
package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"cairn/toolstack/session"
)

// Type is the auth_type by which clients ask for LDAP.
const Type = "LDAP"

// timeout bounds one step: a connection, a bind, a search.
const timeout = 5 * time.Second

// Settings of pool.enable_external_auth.
const (
	keyURL      = "url"      // one or more, separated by spaces; the first that answers is used
	keyCA       = "ca"       // certificates in PEM; without, the system's
	keyBase     = "base_dn"  // where users are searched
	keyGroups   = "group_dn" // where groups are searched; without, where users are
	keyBindDN   = "bind_dn"  // the account that searches; without, nobody
	keyPassword = "bind_password"
	keyUsers    = "user_attributes" // by which users log in, separated by commas
	keyNames    = "group_attribute" // what groups are called
	keyID       = "id_attribute"    // what identifies users and groups for good
)

var known = []string{keyURL, keyCA, keyBase, keyGroups, keyBindDN, keyPassword, keyUsers, keyNames, keyID}

// Directory is an LDAP directory. It implements session.External.
type Directory struct {
	service        string
	urls           []*url.URL
	tls            *tls.Config
	base, groups   string
	bindDN, secret string
	users          []string
	name, id       string
}

var _ session.External = (*Directory)(nil)

// Open reads the settings and makes sure that the directory answers and holds
// what users are searched below. It is a session.OpenFunc.
func Open(ctx context.Context, service string, settings map[string]string) (session.External, error) {
	d, err := parse(service, settings)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", session.ErrSettings, err)
	}
	return d, d.with(ctx, func(c *goldap.Conn) error {
		for _, base := range []string{d.base, d.groups} {
			if _, err := c.Search(d.read(base)); err != nil {
				return fmt.Errorf("%w: base %q: %w", session.ErrSettings, base, err)
			}
		}
		return nil
	})
}

func parse(service string, settings map[string]string) (*Directory, error) {
	for k := range settings {
		if !contains(known, k) {
			return nil, fmt.Errorf("setting %q is not known", k)
		}
	}
	d := &Directory{
		service: service, base: settings[keyBase], groups: or(settings[keyGroups], settings[keyBase]),
		bindDN: settings[keyBindDN], secret: settings[keyPassword],
		users: strings.Split(or(settings[keyUsers], "uid"), ","),
		name:  or(settings[keyNames], "cn"), id: or(settings[keyID], "entryUUID"),
	}
	for _, a := range append([]string{d.name, d.id}, d.users...) {
		if !isAttribute(a) {
			return nil, fmt.Errorf("%q is no attribute", a)
		}
	}
	for _, dn := range []string{d.base, d.groups, d.bindDN} {
		if _, err := goldap.ParseDN(dn); err != nil {
			return nil, fmt.Errorf("%q is no distinguished name: %w", dn, err)
		}
	}
	switch {
	case d.base == "":
		return nil, fmt.Errorf("%s is missing", keyBase)
	case d.bindDN != "" && d.secret == "":
		return nil, fmt.Errorf("%s is missing", keyPassword) // the bind would succeed, as nobody
	}
	if err := d.parseURLs(or(settings[keyURL], "ldaps://"+service)); err != nil {
		return nil, err
	}
	return d, d.parseCA(settings[keyCA])
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if strings.EqualFold(a, s) {
			return true
		}
	}
	return false
}

// isAttribute accepts the short names of attributes.
func isAttribute(s string) bool {
	for _, r := range s {
		if r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			return false
		}
	}
	return s != "" && len(s) < 64
}

func (d *Directory) parseURLs(text string) error {
	for _, field := range strings.Fields(text) {
		u, err := url.Parse(field)
		if err != nil || u.Hostname() == "" || u.Scheme != "ldaps" && u.Scheme != "ldap" {
			return fmt.Errorf("url %q: want ldaps://host:port or ldap://host:port", field)
		}
		d.urls = append(d.urls, u)
	}
	if len(d.urls) == 0 || len(d.urls) > 8 {
		return errors.New("want one to eight urls")
	}
	return nil
}

func (d *Directory) parseCA(pem string) error {
	d.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if pem == "" {
		return nil
	}
	d.tls.RootCAs = x509.NewCertPool()
	if !d.tls.RootCAs.AppendCertsFromPEM([]byte(pem)) {
		return fmt.Errorf("%s holds no certificate", keyCA)
	}
	return nil
}

// with calls f with a connection that may search.
func (d *Directory) with(ctx context.Context, f func(*goldap.Conn) error) error {
	return d.connect(ctx, func(c *goldap.Conn) error {
		if d.bindDN != "" {
			if err := c.Bind(d.bindDN, d.secret); err != nil {
				return bindError("bind as "+d.bindDN, err)
			}
		}
		return f(c)
	})
}

// connect calls f with a connection to the first server that answers. The
// connection is cut when the context ends.
func (d *Directory) connect(ctx context.Context, f func(*goldap.Conn) error) error {
	var failed []error
	for _, u := range d.urls {
		c, err := d.dial(ctx, u)
		if err != nil {
			failed = append(failed, trustError(fmt.Errorf("%s: %w", u.Host, err)))
			continue
		}
		c.SetTimeout(timeout)
		stop := context.AfterFunc(ctx, func() { c.Close() })
		err = f(c)
		stop()
		c.Close()
		return err
	}
	return errors.Join(failed...)
}

func (d *Directory) dial(ctx context.Context, u *url.URL) (*goldap.Conn, error) {
	deadline, ok := ctx.Deadline()
	if limit := time.Now().Add(timeout); !ok || limit.Before(deadline) {
		deadline = limit
	}
	dialer := &net.Dialer{Deadline: deadline}
	config := d.tls.Clone()
	config.ServerName = u.Hostname()
	if u.Scheme == "ldaps" {
		return goldap.DialURL("ldaps://"+u.Host, goldap.DialWithDialer(dialer), goldap.DialWithTLSConfig(config))
	}
	c, err := goldap.DialURL("ldap://"+u.Host, goldap.DialWithDialer(dialer))
	if err != nil {
		return nil, err
	}
	c.SetTimeout(timeout)
	if err := c.StartTLS(config); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// trustError marks the failure to trust a certificate.
func trustError(err error) error {
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) || strings.Contains(err.Error(), "x509:") {
		return fmt.Errorf("%w: %w", session.ErrTrust, err)
	}
	return err
}

// bindError tells credentials that are refused from a directory that fails. A
// locked account is refused by other codes than a wrong password.
func bindError(what string, err error) error {
	if goldap.IsErrorAnyOf(err, goldap.LDAPResultInvalidCredentials, goldap.LDAPResultNoSuchObject,
		goldap.LDAPResultInappropriateAuthentication, goldap.LDAPResultConstraintViolation, goldap.LDAPResultUnwillingToPerform,
		goldap.LDAPResultInsufficientAccessRights) {
		return fmt.Errorf("%s: %w", what, session.ErrCredentials)
	}
	return fmt.Errorf("%s: %w", what, err)
}
