package lab

import "testing"

// TestSiteIsWhatBankAndAPIHaveInCommon: a cookie with this Domain goes to both.
func TestSiteIsWhatBankAndAPIHaveInCommon(t *testing.T) {
	public, err := Public("https://lab.example.com", "https://lab.example.net")
	if err != nil {
		t.Fatal(err)
	}
	ports := map[Role]string{RoleBank: "1", RoleAPI: "2"}
	for want, names := range map[string]Names{
		"bank.localhost": Localhost("http", "7700"), "localhost": ByAddress("http", ports), "lab.example.com": public,
	} {
		if got := names.fill("{site}", "abcdefghijklm"); got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	}
}
