package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/config"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/store/keyfile"
)

func keyCommand() *cobra.Command {
	var file, conf, source string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list, replace and revoke API keys",
		Long: "Works on the file of the keys, whether a gate is running or not. A gate that uses the\n" +
			"file knows of a change within about a second.\n\n" +
			"  moat key create --file keys.db --owner acme --scope read:orders --expires 90d > acme.key\n" +
			"  moat key list --file keys.db\n" +
			"  moat key rotate 7cQ0xHbR --file keys.db --grace 24h > acme.key\n\n" +
			"In place of --file, --config moat.yaml names the file by way of the configuration.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&file, "file", "", "the `file` of the keys")
	cmd.PersistentFlags().StringVar(&conf, "config", "", "the configuration `file` that names it")
	cmd.PersistentFlags().StringVar(&source, "auth", "", "with --config, the `name` under auth, if several have keys")
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		switch {
		case cmd.HasSubCommands():
		case file != "" && (conf != "" || source != ""):
			return usageError{errors.New("--file says it; --config and --auth cannot stand beside"), "leave out one of them"}
		case conf != "":
			file, err = configuredKeyFile(conf, source)
		case file == "":
			return usageError{errors.New("--file: missing"), "--config moat.yaml, or --file keys.db: the file that it names for its API keys"}
		}
		return err
	}
	cmd.AddCommand(keyCreateCommand(&file), keyListCommand(&file), keyShowCommand(&file), keyRotateCommand(&file), keyRevokeCommand(&file))
	return cmd
}

// configuredKeyFile is the file of keys that a configuration names under auth.
func configuredKeyFile(conf, source string) (string, error) {
	files, err := config.KeyFiles(conf)
	if err != nil {
		return "", err
	}
	if source != "" {
		files = slices.DeleteFunc(files, func(f config.KeyFile) bool { return f.Source != source })
	}
	switch {
	case len(files) == 1:
		return files[0].Path, nil
	case len(files) == 0 && source != "":
		return "", hintedError{fmt.Errorf("%s: auth.%s: has no api_key with a file", conf, source), "leave out --auth, or write auth: {" + source + ": {api_key: {file: keys.db}}}"}
	case len(files) == 0:
		if _, err = config.Load(conf); err != nil {
			return "", err // perhaps that is why
		}
		return "", hintedError{fmt.Errorf("%s: no auth has an api_key with a file", conf), "write auth: {partners: {api_key: {file: keys.db}}}"}
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Source)
	}
	return "", usageError{fmt.Errorf("%s: several auth have keys: %s", conf, strings.Join(names, ", ")), "choose one with --auth"}
}

func keyCreateCommand(file *string) *cobra.Command {
	var (
		k       apikey.Key
		expires string
	)
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a key, and the file if there is none",
		Long:  "Prints the key on standard output, this once: what is stored is a hash of it.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			life, err := lifetime(expires)
			if err != nil {
				return err
			}
			if life > 0 {
				k.Expires = now.Add(life)
			}
			text, made, err := apikey.Generate(k, now)
			if err != nil {
				return usageError{fmt.Errorf("--%w", err), cmd.CommandPath() + " --help lists the flags"}
			}
			err = keyfile.Edit(*file, true, func(keys map[string]*apikey.Key) error { return addKey(keys, &made) })
			if errors.Is(err, fs.ErrNotExist) {
				return hintedError{err, "the directory has to be there"}
			}
			if err != nil {
				return noSuchFile(*file, err)
			}
			return handOut(cmd, *file, text, &made, "")
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&k.Owner, "owner", "", "whose key it is: the subject of its requests, by `name`")
	flags.StringArrayVar(&k.Scopes, "scope", nil, "how far the key reaches: a `scope`; as often as there are any")
	flags.StringVar(&k.Note, "note", "", "a `text` for yourself")
	flags.StringVar(&expires, "expires", "90d", "for how `long` the key is good, such as 12h or 90d; or never")
	return cmd
}

func keyRotateCommand(file *string) *cobra.Command {
	var grace, expires string
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a key in the place of another one",
		Long: "The new key has the owner, the scopes and the note of the other one, and is good for as\n" +
			"long as that was when it was made, unless --expires says otherwise. It is printed on\n" +
			"standard output, this once. The other one stays good until the time of grace is over.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			wait, err := span("--grace", grace)
			if err != nil {
				return err
			}
			var life time.Duration
			if expires != "" {
				if life, err = lifetime(expires); err != nil {
					return err
				}
			}
			var (
				text string
				made apikey.Key
			)
			err = keyfile.Edit(*file, false, func(keys map[string]*apikey.Key) error {
				old, notFound := findKey(keys, args[0])
				if notFound != nil {
					return notFound
				}
				switch {
				case old.ReplacedBy != "":
					return hintedError{fmt.Errorf("key %s has been replaced already, by %s", old.ID, old.ReplacedBy), "moat key rotate " + old.ReplacedBy}
				case !old.Revoked.IsZero():
					return hintedError{fmt.Errorf("key %s has been revoked", old.ID), "moat key create makes a new one"}
				}
				next := *old
				switch {
				case life > 0:
					next.Expires = now.Add(life)
				case expires != "" || old.Expires.IsZero():
					next.Expires = time.Time{}
				default:
					next.Expires = now.Add(old.Expires.Sub(old.Created))
				}
				if text, made, err = apikey.Generate(next, now); err != nil {
					return err
				}
				old.ReplacedBy, old.GraceUntil = made.ID, now.Add(wait).UTC().Truncate(time.Second)
				return addKey(keys, &made)
			})
			if err != nil {
				return noSuchFile(*file, err)
			}
			return handOut(cmd, *file, text, &made, fmt.Sprintf("key %s is good until %s\n", args[0], utc(now.Add(wait))))
		},
	}
	cmd.Flags().StringVar(&grace, "grace", "24h", "for how `long` the other key stays good, such as 24h, 7d or 0s")
	cmd.Flags().StringVar(&expires, "expires", "", "for how `long` the new key is good, such as 12h or 90d; or never")
	return cmd
}

func keyRevokeCommand(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Take a key back, at once and for ever",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var revoked apikey.Key
			err := keyfile.Edit(*file, false, func(keys map[string]*apikey.Key) error {
				k, err := findKey(keys, args[0])
				if err != nil {
					return err
				}
				if k.Revoked.IsZero() {
					k.Revoked = time.Now().UTC().Truncate(time.Second)
				}
				revoked = *k
				return nil
			})
			if err != nil {
				return noSuchFile(*file, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s of %s is revoked since %s\n", revoked.ID, revoked.Owner, utc(revoked.Revoked))
			return nil
		},
	}
}

func keyListCommand(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys, never the secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := keyfile.List(*file)
			if err != nil {
				return noSuchFile(*file, err)
			}
			out, now := cmd.OutOrStdout(), time.Now()
			if asJSON {
				list := make([]keyJSON, len(keys))
				for i := range keys {
					list[i] = toJSON(&keys[i], now)
				}
				return printJSON(out, list)
			}
			rows := [][]string{{"ID", "STATE", "EXPIRES", "LAST USED", "OWNER", "SCOPES"}}
			for _, k := range keys {
				rows = append(rows, []string{k.ID, state(&k, now), cmp.Or(utc(k.Expires), "never"), cmp.Or(utc(k.LastUsed), "never"), k.Owner, strings.Join(k.Scopes, " ")})
			}
			o := textOptions(out, false)
			o.Width = 0 // what is cut cannot be copied
			_, err = io.WriteString(out, strings.Join(columns(rows, o), "\n")+"\n")
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func keyShowCommand(file *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show what is known of a key",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := keyfile.List(*file)
			if err != nil {
				return noSuchFile(*file, err)
			}
			keys := make(map[string]*apikey.Key, len(list))
			for i := range list {
				keys[list[i].ID] = &list[i]
			}
			k, err := findKey(keys, args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", *file, err)
			}
			out, now := cmd.OutOrStdout(), time.Now()
			if asJSON {
				return printJSON(out, toJSON(k, now))
			}
			for _, line := range [][2]string{
				{"id", k.ID},
				{"owner", k.Owner},
				{"note", k.Note},
				{"scopes", strings.Join(k.Scopes, " ")},
				{"state", state(k, now)},
				{"created", utc(k.Created)},
				{"expires", cmp.Or(utc(k.Expires), "never")},
				{"last used", cmp.Or(utc(k.LastUsed), "never")},
				{"revoked", utc(k.Revoked)},
			} {
				if line[1] != "" {
					fmt.Fprintf(out, "%-10s %s\n", line[0], printable(line[1]))
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// handOut prints a key on standard output and nothing else, so that it can go into a file or
// another program.
func handOut(cmd *cobra.Command, file, text string, k *apikey.Key, more string) error {
	if _, err := io.WriteString(cmd.OutOrStdout(), text+"\n"); err != nil {
		return hintedError{fmt.Errorf("the key was made and could not be handed out: %w", err), "moat key revoke " + k.ID + " --file " + file}
	}
	scopes := "without scopes"
	if len(k.Scopes) > 0 {
		scopes = "for " + strings.Join(k.Scopes, " ")
	}
	life := "it never expires"
	if !k.Expires.IsZero() {
		life = "it is good until " + utc(k.Expires)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "key %s of %s, %s; %s\n%sthe key itself is shown this once, and stored nowhere\n", k.ID, k.Owner, scopes, life, more)
	return nil
}

func addKey(keys map[string]*apikey.Key, k *apikey.Key) error {
	if keys[k.ID] != nil {
		return errors.New("the new key has the id of another one, which happens once in 200,000,000,000,000 times: try again")
	}
	keys[k.ID] = k
	return nil
}

func findKey(keys map[string]*apikey.Key, id string) (*apikey.Key, error) {
	if k := keys[id]; k != nil {
		return k, nil
	}
	if own, ok := apikey.ID(id); ok {
		return nil, hintedError{errors.New("that is a key, not the id of one"), "its id is " + own + "; the key itself may stand in the history of your shell now"}
	}
	return nil, hintedError{fmt.Errorf("no key has the id %q%s", id, config.DidYouMean(id, maps.Keys(keys))), "moat key list shows all"}
}

func noSuchFile(file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hintedError{err, "moat key create --file " + file + " --owner NAME makes it"}
	}
	return err
}

// lifetime reads for how long a key is good: 0 is never.
func lifetime(s string) (time.Duration, error) {
	if s == "never" {
		return 0, nil
	}
	d, err := span("--expires", s)
	if err == nil && d < time.Second {
		err = usageError{fmt.Errorf("--expires: %q: a key that was never good", s), "such as 12h or 90d; or never"}
	}
	return d, err
}

// span reads a length of time. Days are what the time package does not know.
func span(flag, s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, usageError{fmt.Errorf("%s: %.40q: not a length of time", flag, s), "such as 12h or 90d"}
}

// keyJSON is a key for programs.
type keyJSON struct {
	ID         string       `json:"id"`
	Owner      string       `json:"owner"`
	Note       string       `json:"note,omitzero"`
	Scopes     []string     `json:"scopes"`
	State      apikey.State `json:"state"`
	Created    time.Time    `json:"created"`
	Expires    time.Time    `json:"expires,omitzero"`
	LastUsed   time.Time    `json:"last_used,omitzero"`
	Revoked    time.Time    `json:"revoked,omitzero"`
	ReplacedBy string       `json:"replaced_by,omitzero"`
	GraceUntil time.Time    `json:"grace_until,omitzero"`
}

func toJSON(k *apikey.Key, now time.Time) keyJSON {
	return keyJSON{
		k.ID, k.Owner, k.Note, append([]string{}, k.Scopes...), k.State(now), k.Created, k.Expires, k.LastUsed, k.Revoked, k.ReplacedBy, k.GraceUntil,
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// state says what has become of a key, and of one that was replaced by which.
func state(k *apikey.Key, now time.Time) string {
	s := string(k.State(now))
	switch {
	case k.ReplacedBy == "" || !k.Revoked.IsZero():
		return s
	case k.State(now) == apikey.Replaced:
		return "replaced by " + k.ReplacedBy + ", good until " + utc(k.GraceUntil)
	}
	return "replaced by " + k.ReplacedBy
}

// utc is a time to the minute, and "" is none.
func utc(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04Z")
}
