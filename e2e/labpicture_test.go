package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	cdpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/moat-gateway/moat/lab"
)

var takePicture = flag.Bool("lab.picture", false, "take README's picture of the lab anew")

// TestLabPicture: README's picture is there, and small. make lab-picture takes it.
func TestLabPicture(t *testing.T) {
	const file = "../docs/lab.png"
	if *takePicture {
		if err := os.WriteFile(file, picture(t), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run make lab-picture", err)
	}
	if len(b) > 150<<10 {
		t.Errorf("%s has %d bytes", file, len(b))
	}
	if c, err := png.DecodeConfig(bytes.NewReader(b)); err != nil || c.Width != 1280 {
		t.Errorf("%s: %v, %d pixels wide; want 1280", file, err, c.Width)
	}
}

// picture is what one sees when the money has moved and the console says "blocked".
func picture(t *testing.T) []byte {
	t.Helper()
	p := newLabTab(t, startLab(t))
	p.look("light", 1280)
	lesson := labLesson(t, "transfer")
	run := &lesson.Runs[0]
	p.show(lesson, run, lab.RoleAPI)
	c := labCase{lesson, run, lab.RoleAPI, run.Expect}
	c.check(t, p.make(run.Expect))
	return p.picture(`(() => {
		const y = scrollY + document.querySelector(".lanes").getBoundingClientRect().top - 16;
		const end = scrollY + document.querySelector(".outcome").getBoundingClientRect().bottom + 16;
		return JSON.stringify({ x: 0, y, width: 1280, height: end - y, scale: 1 });
	})()`)
}

// picture is a small PNG of the part of the page that a script names, as JSON of a Viewport.
func (p *labTab) picture(script string) []byte {
	p.t.Helper()
	var clip cdpage.Viewport
	if err := json.Unmarshal([]byte(p.eval(script)), &clip); err != nil {
		p.t.Fatal(err)
	}
	beyond := true
	var shot []byte
	p.do("take a picture", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		r, err := cdp.Call(ctx, target, cdpage.CaptureScreenshot, cdpage.CaptureScreenshotParams{Format: cdpage.CaptureScreenshotFormatPng, CaptureBeyondViewport: &beyond, Clip: &clip})
		shot = r.Data
		return err
	}))
	taken, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		p.t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, withPalette(taken)); err != nil {
		p.t.Fatal(err)
	}
	return small.Bytes()
}

// withPalette is the picture in its 256 most frequent colours: that is all that type and lines
// need, and a third of the bytes.
func withPalette(from image.Image) image.Image {
	count := map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(from.At(x, y)).(color.RGBA) } //nolint:forcetypeassert // that is what RGBAModel makes
	b := from.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	all := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int { return count[b] - count[a] })
	var colours color.Palette
	for _, c := range all[:min(256, len(all))] {
		colours = append(colours, c)
	}
	to := image.NewPaletted(b, colours)
	index := map[color.RGBA]uint8{}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			c := at(x, y)
			i, ok := index[c]
			if !ok {
				i = uint8(colours.Index(c))
				index[c] = i
			}
			to.SetColorIndex(x, y, i)
		}
	}
	return to
}
