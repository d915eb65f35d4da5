package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"cairn/toolstack/session"
)

// Bounds on how far groups are followed.
const (
	maxGroups = 1000
	maxFound  = 1000 // groups one search may answer
)

// lockedForGood is the time of a lock that an administrator has put on. Other
// locks pass by themselves: they keep logins out, which the directory does, but
// whoever guesses a user's password must not end his sessions by it.
const lockedForGood = "000001010000Z"

// groupClasses are what makes an entry a group.
var groupClasses = []string{"groupOfNames", "groupOfUniqueNames", "groupOfMembers", "posixGroup", "group"}

// attributes are what is read of an entry.
func (d *Directory) attributes() []string {
	return append([]string{
		d.id, d.name, "objectClass", "cn", "displayName", "gecos", "mail", "uid", "uidNumber", "gidNumber", "memberOf",
		"nsAccountLock", "pwdAccountLockedTime", "userAccountControl", "shadowExpire",
	}, d.users...)
}

// read asks for one entry by its name in the directory.
func (d *Directory) read(dn string) *goldap.SearchRequest {
	return goldap.NewSearchRequest(dn, goldap.ScopeBaseObject, goldap.NeverDerefAliases, 1, seconds(timeout), false,
		"(objectClass=*)", d.attributes(), nil)
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// below asks for the entries below a base that match a filter.
func (d *Directory) below(base, filter string, limit int) *goldap.SearchRequest {
	return goldap.NewSearchRequest(base, goldap.ScopeWholeSubtree, goldap.NeverDerefAliases, limit, seconds(timeout), false,
		filter, d.attributes(), nil)
}

// anyOf matches entries that have the value in one of the attributes.
func anyOf(value string, attributes ...string) string {
	var b strings.Builder
	for _, a := range attributes {
		fmt.Fprintf(&b, "(%s=%s)", a, goldap.EscapeFilter(value))
	}
	return "(|" + b.String() + ")"
}

// isGroup matches groups.
func isGroup() string { return classes(groupClasses...) }

func classes(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		b.WriteString("(objectClass=" + n + ")")
	}
	return "(|" + b.String() + ")"
}

// one answers the only entry that matches, or session.ErrNoSubject.
func (d *Directory) one(c *goldap.Conn, base, filter string) (*goldap.Entry, error) {
	found, err := c.Search(d.below(base, filter, 2))
	switch {
	case goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded) || err == nil && len(found.Entries) > 1:
		return nil, errors.New("several entries match")
	case goldap.IsErrorWithCode(err, goldap.LDAPResultNoSuchObject) || err == nil && len(found.Entries) == 0:
		return nil, session.ErrNoSubject
	case err != nil:
		return nil, err
	}
	return found.Entries[0], nil
}

// short takes the name of the directory off a user's name, where a client puts
// it: alice@example.com, example.com\alice.
func (d *Directory) short(name string) string {
	if before, after, ok := strings.Cut(name, `\`); ok && strings.EqualFold(before, d.service) {
		return after
	}
	if at := strings.LastIndexByte(name, '@'); at > 0 && strings.EqualFold(name[at+1:], d.service) {
		return name[:at]
	}
	return name
}

// findUser finds a user by what he logs in by. That it is no group is looked at
// here: a directory that lacks one of the classes would match nothing but it.
func (d *Directory) findUser(c *goldap.Conn, name string) (*goldap.Entry, error) {
	e, err := d.one(c, d.base, anyOf(d.short(name), d.users...))
	if err == nil && describesGroup(e) {
		return nil, session.ErrNoSubject
	}
	return e, err
}

func describesGroup(e *goldap.Entry) bool {
	return slices.ContainsFunc(e.GetEqualFoldAttributeValues("objectClass"), func(c string) bool { return contains(groupClasses, c) })
}

// byID finds a user or group by its identifier.
func (d *Directory) byID(c *goldap.Conn, id string) (*goldap.Entry, error) {
	e, err := d.one(c, d.base, anyOf(id, d.id))
	if errors.Is(err, session.ErrNoSubject) && d.groups != d.base {
		return d.one(c, d.groups, anyOf(id, d.id))
	}
	return e, err
}

// Authenticate implements session.External. The empty password is refused here:
// a directory takes it for no password and succeeds.
func (d *Directory) Authenticate(ctx context.Context, user, password string) (string, error) {
	if user == "" || password == "" {
		return "", session.ErrCredentials
	}
	var e *goldap.Entry
	err := d.with(ctx, func(c *goldap.Conn) (err error) {
		e, err = d.findUser(c, user)
		return err
	})
	switch {
	case errors.Is(err, session.ErrCredentials): // those of the searching account
		return "", fmt.Errorf("the configured account is refused: %s", err)
	case err != nil:
		return "", err
	}
	err = d.connect(ctx, func(c *goldap.Conn) error {
		if err := c.Bind(e.DN, password); err != nil {
			return bindError("bind as "+e.DN, err)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return d.identifier(e)
}

func (d *Directory) identifier(e *goldap.Entry) (string, error) {
	if id := e.GetEqualFoldAttributeValue(d.id); id != "" {
		return id, nil
	}
	return "", fmt.Errorf("%s has no %s", e.DN, d.id)
}

// Lookup implements session.External: users come before groups.
func (d *Directory) Lookup(ctx context.Context, name string) (id string, err error) {
	err = d.with(ctx, func(c *goldap.Conn) error {
		e, err := d.findUser(c, name)
		if errors.Is(err, session.ErrNoSubject) {
			e, err = d.one(c, d.groups, "(&"+isGroup()+anyOf(d.short(name), d.name)+")")
		}
		if err != nil {
			return err
		}
		id, err = d.identifier(e)
		return err
	})
	return id, searchError(err)
}

// searchError keeps what is wrong with the configured account from being taken
// for something about a user.
func searchError(err error) error {
	if errors.Is(err, session.ErrCredentials) {
		return fmt.Errorf("the configured account is refused: %s", err)
	}
	return err
}

// Information implements session.External.
func (d *Directory) Information(ctx context.Context, id string) (about map[string]string, err error) {
	err = d.with(ctx, func(c *goldap.Conn) error {
		e, err := d.byID(c, id)
		if err == nil {
			about = d.describe(e, id)
		}
		return err
	})
	return about, searchError(err)
}

// describe puts an entry into the terms of the API.
func (d *Directory) describe(e *goldap.Entry, id string) map[string]string {
	get := e.GetEqualFoldAttributeValue
	group := describesGroup(e)
	name := get(d.users[0])
	if group || name == "" {
		name = get(d.name)
	}
	about := map[string]string{
		"subject-name": name, "subject-sid": id, "subject-is-group": strconv.FormatBool(group),
		"subject-gecos": or(get("gecos"), get("cn")), "subject-displayname": or(get("displayName"), get("cn")),
		"subject-uid": get("uidNumber"), "subject-gid": get("gidNumber"), "subject-upn": or(get("mail"), name+"@"+d.service),
		"subject-password-expired": "false",
	}
	flags, _ := strconv.ParseInt(get("userAccountControl"), 10, 64)
	expires, err := strconv.ParseInt(get("shadowExpire"), 10, 64)
	expired := err == nil && expires >= 0 && time.Unix(0, 0).AddDate(0, 0, int(min(expires, 1<<20))).Before(time.Now())
	about[session.DisabledKey] = strconv.FormatBool(strings.EqualFold(get("nsAccountLock"), "true") || flags&2 != 0)
	about[session.LockedKey] = strconv.FormatBool(get("pwdAccountLockedTime") == lockedForGood)
	about[session.ExpiredKey] = strconv.FormatBool(expired)
	return about
}

// Groups implements session.External. It goes by what entries say of themselves
// (memberOf) and by what groups say of their members, and from group to group.
func (d *Directory) Groups(ctx context.Context, id string) (ids []string, err error) {
	err = d.with(ctx, func(c *goldap.Conn) error {
		e, err := d.byID(c, id)
		if err != nil {
			return err
		}
		seen := map[string]bool{normal(e.DN): true}
		for queue := []*goldap.Entry{e}; len(queue) > 0 && len(ids) < maxGroups; queue = queue[1:] {
			groups, err := d.groupsOf(c, queue[0])
			if err != nil {
				return err
			}
			for _, g := range groups {
				gid := g.GetEqualFoldAttributeValue(d.id)
				if gid == "" || seen[normal(g.DN)] {
					continue
				}
				seen[normal(g.DN)] = true
				ids, queue = append(ids, gid), append(queue, g)
			}
		}
		return nil
	})
	return ids, searchError(err)
}

// groupsOf finds the groups an entry is directly in.
func (d *Directory) groupsOf(c *goldap.Conn, e *goldap.Entry) ([]*goldap.Entry, error) {
	filter := "(&" + isGroup() + anyOf(e.DN, "member", "uniqueMember") + ")"
	if uid := e.GetEqualFoldAttributeValue("uid"); uid != "" {
		filter = "(|" + filter + "(&(objectClass=posixGroup)" + anyOf(uid, "memberUid") + "))"
	}
	found, err := c.Search(d.below(d.groups, filter, maxFound))
	if err != nil && !goldap.IsErrorWithCode(err, goldap.LDAPResultSizeLimitExceeded) {
		return nil, err
	}
	groups := found.Entries
	have := map[string]bool{}
	for _, g := range groups {
		have[normal(g.DN)] = true
	}
	for _, dn := range e.GetEqualFoldAttributeValues("memberOf") {
		if have[normal(dn)] || len(groups) >= maxFound {
			continue
		}
		r, err := c.Search(d.read(dn))
		switch {
		case goldap.IsErrorAnyOf(err, goldap.LDAPResultNoSuchObject, goldap.LDAPResultInsufficientAccessRights):
		case err != nil:
			return nil, err
		default:
			groups = append(groups, r.Entries...)
		}
	}
	return groups, nil
}

// normal makes spellings of one distinguished name the same.
func normal(dn string) string {
	parsed, err := goldap.ParseDN(dn)
	if err != nil {
		return strings.ToLower(dn)
	}
	return strings.ToLower(parsed.String())
}
