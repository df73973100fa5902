package keyfile_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/moat-gateway/moat/guard"
	"github.com/moat-gateway/moat/guard/identity/apikey"
	"github.com/moat-gateway/moat/store/keyfile"
)

// writerVariable makes a process of this test make keys in the file that it names, until it
// is killed.
const writerVariable = "MOAT_TEST_WRITE_KEYS"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerVariable); path != "" {
		for {
			_, k, err := apikey.Generate(apikey.Key{Owner: "acme", Note: strings.Repeat("n", 400)}, time.Now())
			if err == nil {
				err = keyfile.Edit(path, true, func(keys map[string]*apikey.Key) error { keys[k.ID] = &k; return nil })
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(k.ID)
		}
	}
	os.Exit(m.Run())
}

func create(t testing.TB, path string, described apikey.Key) (text string, k apikey.Key) {
	t.Helper()
	if described.Owner == "" {
		described.Owner = "acme"
	}
	text, k, err := apikey.Generate(described, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err = keyfile.Edit(path, true, func(keys map[string]*apikey.Key) error { keys[k.ID] = &k; return nil }); err != nil {
		t.Fatal(err)
	}
	return text, k
}

func edit(t *testing.T, path, id string, change func(*apikey.Key)) {
	t.Helper()
	if err := keyfile.Edit(path, false, func(keys map[string]*apikey.Key) error { change(keys[id]); return nil }); err != nil {
		t.Fatal(err)
	}
}

func list(t *testing.T, path string) []apikey.Key {
	t.Helper()
	keys, err := keyfile.List(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func newPath(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "keys.db")
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := newPath(t)
	_, a := create(t, path, apikey.Key{Owner: "Åcme & Söhne", Note: "CI", Scopes: []string{"read", "write"}, Expires: time.Now().Add(time.Hour)})
	_, b := create(t, path, apikey.Key{})
	edit(t, path, a.ID, func(k *apikey.Key) {
		k.Revoked = time.Unix(1_800_000_000, 0).UTC()
		k.ReplacedBy, k.GraceUntil = b.ID, time.Unix(1_900_000_000, 0).UTC()
		a = *k
	})
	want := []apikey.Key{a, b}
	if a.Created.Equal(b.Created) && b.ID < a.ID {
		want = []apikey.Key{b, a}
	}
	if got := list(t, path); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if key, _ := create(t, path, apikey.Key{}); strings.Contains(string(text), key[14:]) {
		t.Error("the file has a key's secret")
	}
}

func TestAnEditIsAllOrNothing(t *testing.T) {
	path := newPath(t)
	_, k := create(t, path, apikey.Key{})
	stop := errors.New("stop")
	for name, change := range map[string]func(keys map[string]*apikey.Key) error{
		"the editor stops":   func(keys map[string]*apikey.Key) error { keys[k.ID].Owner = "mallory"; return stop },
		"a key is not valid": func(keys map[string]*apikey.Key) error { keys[k.ID].Owner = "a\nb"; return nil },
	} {
		if err := keyfile.Edit(path, false, change); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: %v", name, err)
		}
		if got := list(t, path); len(got) != 1 || got[0].Owner != "acme" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if err := keyfile.Edit(path, false, func(map[string]*apikey.Key) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
}

func TestWhichFilesAreRefused(t *testing.T) {
	good := newPath(t)
	create(t, good, apikey.Key{})
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(content string) string {
		path := newPath(t)
		if err = os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bolt := func(fill func(tx *bbolt.Tx) error) string {
		path := newPath(t)
		db, openErr := bbolt.Open(path, 0o600, nil)
		if openErr != nil {
			t.Fatal(openErr)
		}
		if err = errors.Join(db.Update(fill), db.Close()); err != nil {
			t.Fatal(err)
		}
		return path
	}
	writable := write(string(content))
	if err = os.Chmod(writable, 0o620); err != nil {
		t.Fatal(err)
	}
	newer := write(string(content))
	db, err := bbolt.Open(newer, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("moat api keys")).Put([]byte("format"), []byte("2")) })
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, want string }{
		"none":                 {newPath(t), "no such file"},
		"a directory":          {t.TempDir(), "not a file"},
		"empty":                {write(""), "not a file of API keys"},
		"text":                 {write(strings.Repeat("owner: acme\n", 3000)), "not a file of API keys"},
		"cut short":            {write(string(content[:len(content)/2])), "damaged"},
		"another's database":   {bolt(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("users")); return err }), "not a file of API keys"},
		"a database of nobody": {bolt(func(*bbolt.Tx) error { return nil }), "not a file of API keys"},
		"of a newer moat":      {newer, `its format is "2"; this moat knows "1"`},
		"others can write it":  {writable, "others can write it (mode 0620), and so make keys: chmod 600"},
	} {
		_, err := keyfile.List(test.path)
		if err == nil || !strings.HasPrefix(err.Error(), test.path+": ") || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if f, openErr := keyfile.Open(test.path, nil); openErr == nil || openErr.Error() != err.Error() {
			t.Errorf("%s: Open says %v", name, openErr)
			f.Close()
		}
		if editErr := keyfile.Edit(test.path, false, func(map[string]*apikey.Key) error { return nil }); editErr == nil {
			t.Errorf("%s: can be edited", name)
		}
	}
	if err := keyfile.Edit(newPath(t), false, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Somebody can be killed between making the file and writing the first key.
func TestAFileWithNothingInItIsMadeAnew(t *testing.T) {
	path := newPath(t)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	create(t, path, apikey.Key{})
	if got := list(t, path); len(got) != 1 {
		t.Error(got)
	}
}

// A flipped bit must not make a key good, nor a process end.
func TestADamagedFileIsNeverMistaken(t *testing.T) {
	path := newPath(t)
	_, k := create(t, path, apikey.Key{Scopes: []string{"read"}})
	edit(t, path, k.ID, func(k *apikey.Key) { k.Revoked = time.Now().UTC().Truncate(time.Second) })
	want := list(t, path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	step := 31
	if testing.Short() {
		step = 127
	}
	refused := 0
	for i := 0; i < len(content); i += step {
		damaged := []byte(string(content))
		damaged[i] ^= 1 << (i % 8)
		if err = os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := keyfile.List(path)
		if err != nil {
			refused++
			continue
		}
		// A copy that is no longer in use may be seen, if the damage is in the newer root:
		// that is the file before the last change. Nothing else may be.
		for _, k := range keys {
			if k.ID != want[0].ID || k.Hash != want[0].Hash || k.Owner != "acme" || !reflect.DeepEqual(k.Scopes, want[0].Scopes) {
				t.Fatalf("byte %d: %+v", i, k)
			}
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed")
	}
}

// bbolt panics over a damaged list of free pages while it opens the file to write.
func TestAFileThatIsDamagedWhereWritersLookIsNotLeftLocked(t *testing.T) {
	path := newPath(t)
	text, _ := create(t, path, apikey.Key{})
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := []byte(string(content))
	for page := 0; page < len(damaged); page += os.Getpagesize() {
		if damaged[page+8] == 0x10 { // its flags say that it is such a list
			damaged[page+8] = 0x02
		}
	}
	synctest.Test(t, func(t *testing.T) {
		said := new(reports)
		f, err := keyfile.Open(path, said.add)
		if err != nil {
			t.Fatal(err)
		}
		if p, d := apikey.New(apikey.Policy{Keys: f.Keys()}).Verify(t.Context(), text, time.Now()); p == nil {
			t.Fatal(d.Reason)
		}
		if err = os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		said.want(t, "damaged: restore it from a backup, or make new keys in another file") // to write last uses
		begin := time.Now()
		nothing := func(map[string]*apikey.Key) error { return nil }
		if err = keyfile.Edit(path, false, nothing); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Error(err)
		}
		if err = os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err = keyfile.Edit(path, false, nothing); err != nil || time.Since(begin) > 0 {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		f.Close()
	})
}

func TestAFlippedBitRevivesNoKey(t *testing.T) {
	path := newPath(t)
	_, k := create(t, path, apikey.Key{})
	edit(t, path, k.ID, func(k *apikey.Key) { k.Revoked = time.Now().UTC().Truncate(time.Second) })
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := strings.ReplaceAll(string(content), `"revoked":`, `"revokee":`) // which no program looks for
	if err = os.WriteFile(path, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, err := keyfile.List(path); err == nil || !strings.Contains(err.Error(), "key \""+k.ID+"\" is damaged: its checksum does not fit") {
		t.Errorf("%+v, %v", keys, err)
	}
}

func TestWritersAtOnceAllSucceed(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { create(t, path, apikey.Key{}) })
	}
	wg.Wait()
	if got := list(t, path); len(got) != 8 {
		t.Errorf("%d keys", len(got))
	}
}

func TestAWriterThatIsKilledLosesNothingThatItSaid(t *testing.T) {
	path := newPath(t)
	said := make(map[string]bool)
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), writerVariable+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err = cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			said[lines.Text()] = true
			if n == 20 {
				cmd.Process.Kill() // in the middle of the next one
			}
		}
		cmd.Wait()
		there := make(map[string]bool)
		for _, k := range list(t, path) {
			there[k.ID] = true
		}
		for id := range said {
			if !there[id] {
				t.Errorf("%s is gone", id)
			}
		}
	}
	if len(said) < 60 {
		t.Errorf("%d keys", len(said))
	}
}

// reports collects what a File says.
type reports struct {
	mu  sync.Mutex
	all []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := ""
	if err != nil {
		_, text, _ = strings.Cut(err.Error(), "keys.db: ")
	}
	r.all = append(r.all, text)
}

func (r *reports) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !reflect.DeepEqual(r.all, want) {
		t.Errorf("it said %q, want %q", r.all, want)
	}
	r.all = nil
}

func TestAFileInUseKeepsUp(t *testing.T) {
	path := newPath(t)
	text, k := create(t, path, apikey.Key{})
	synctest.Test(t, func(t *testing.T) {
		var said reports
		f, err := keyfile.Open(path, said.add)
		if err != nil {
			t.Fatal(err)
		}
		v := apikey.New(apikey.Policy{Keys: f.Keys()})
		verify := func(text string, want guard.Reason) {
			t.Helper()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			if _, d := v.Verify(t.Context(), text, time.Now()); d.Reason != want {
				t.Errorf("%s, want %s", d.Reason, want)
			}
		}
		verify(text, guard.IdentityVerified)
		second, _ := create(t, path, apikey.Key{})
		verify(second, guard.IdentityVerified)
		edit(t, path, k.ID, func(k *apikey.Key) { k.Revoked = time.Now().UTC().Truncate(time.Second) })
		verify(text, guard.APIKeyRevoked)
		said.want(t)

		// It goes away, comes back as another, is damaged, and is mended.
		if err = os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		verify(text, guard.APIKeyRevoked)
		verify(second, guard.IdentityVerified)
		said.want(t, "no such file or directory")
		third, _ := create(t, path, apikey.Key{})
		verify(third, guard.IdentityVerified)
		verify(second, guard.APIKeyUnknown)
		said.want(t, "")
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err = os.Truncate(path, 8192); err != nil {
			t.Fatal(err)
		}
		verify(third, guard.IdentityVerified)
		said.want(t, "damaged: restore it from a backup, or make new keys in another file")
		if err = os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		verify(third, guard.IdentityVerified)
		if err = os.Rename(path+".old", path); err != nil {
			t.Fatal(err)
		}
		verify(third, guard.APIKeyUnknown)
		verify(second, guard.IdentityVerified)
		said.want(t, "")
		if err = f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLastUsesAreWrittenOnceAMinuteAndAtTheEnd(t *testing.T) {
	path := newPath(t)
	text, k := create(t, path, apikey.Key{})
	create(t, path, apikey.Key{Owner: "idle"})
	synctest.Test(t, func(t *testing.T) { // it begins at a full minute, in 2000
		f, err := keyfile.Open(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := apikey.New(apikey.Policy{Keys: f.Keys()})
		lastUsed := func(want time.Time) {
			t.Helper()
			for _, k := range list(t, path) {
				if k.Owner != "idle" && !k.LastUsed.Equal(want) || k.Owner == "idle" && !k.LastUsed.IsZero() {
					t.Errorf("%s: last used %v, want %v", k.Owner, k.LastUsed, want)
				}
			}
		}
		begin := time.Now()
		v.Verify(t.Context(), text, begin)
		time.Sleep(50 * time.Second)
		lastUsed(time.Time{})
		time.Sleep(12 * time.Second)
		synctest.Wait()
		lastUsed(begin)

		v.Verify(t.Context(), text, time.Now())
		edit(t, path, k.ID, func(k *apikey.Key) { k.Note = "changed meanwhile" })
		time.Sleep(2 * time.Second)
		if err = f.Close(); err != nil {
			t.Fatal(err)
		}
		lastUsed(begin.Add(time.Minute))

		// Another process that has not used it as lately takes nothing back.
		var two [2]*keyfile.File
		for i := range two {
			if two[i], err = keyfile.Open(path, nil); err != nil {
				t.Fatal(err)
			}
		}
		for i, f := range two {
			apikey.New(apikey.Policy{Keys: f.Keys()}).Verify(t.Context(), text, begin.Add(time.Duration(9-i)*time.Minute))
			if err = f.Close(); err != nil {
				t.Fatal(err)
			}
			lastUsed(begin.Add(9 * time.Minute))
		}
	})
}

func TestAFileThatAnotherProcessKeepsIsNotWaitedForLong(t *testing.T) {
	path := newPath(t)
	create(t, path, apikey.Key{})
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	synctest.Test(t, func(t *testing.T) {
		if _, err := keyfile.List(path); err == nil || !strings.HasSuffix(err.Error(), "keys.db: another process has had it locked for 5s") {
			t.Error(err)
		}
	})
}

func BenchmarkLookWhetherItHasChanged(b *testing.B) {
	path := newPath(b)
	create(b, path, apikey.Key{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := keyfile.List(path); err != nil {
			b.Fatal(err)
		}
	}
}
