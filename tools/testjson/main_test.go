package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReportShowsWhatFailedAndCountsWhatWasSkipped(t *testing.T) {
	const input = `{"Action":"start","Package":"a"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"noise\n"}
{"Action":"pass","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"=== RUN   TestSkipped\\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"    x_test.go:1: no redis\n"}
{"Action":"output","Package":"a","Test":"TestSkipped","Output":"--- SKIP: TestSkipped (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestSkipped"}
{"Action":"skip","Package":"a","Test":"FuzzX/seed#1"}
{"Action":"output","Package":"a","Output":"PASS\n"}
{"Action":"output","Package":"a","Output":"ok  \ta\t0.1s\n"}
{"Action":"pass","Package":"a"}
go: downloading something
{"Action":"output","Package":"b","Test":"TestBad","Output":"    y_test.go:1: 1, want 2\n"}
{"Action":"fail","Package":"b","Test":"TestBad"}
{"Action":"output","Package":"b","Test":"TestHangs","Output":"panic: test timed out\n"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t0.2s\n"}
{"Action":"fail","Package":"b"}
{"ImportPath":"c","Action":"build-output","Output":"c.go:1: undefined: x\n"}
{"ImportPath":"c","Action":"build-fail"}
{"Action":"skip","Package":"d"}
`
	const want = `ok  	a	0.1s
go: downloading something
    y_test.go:1: 1, want 2
panic: test timed out
FAIL	b	0.2s
c.go:1: undefined: x
`
	var out strings.Builder
	r := &report{out: &out, buffers: map[test]*strings.Builder{}}
	if err := r.read(strings.NewReader(input)); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	if want := []string{"TestSkipped in a: skipped: x_test.go:1: no redis\n", "FuzzX/seed#1 in a: skipped: no reason given\n"}; !slices.Equal(r.skipped, want) {
		t.Errorf("skipped = %q, want %q", r.skipped, want)
	}
	if !r.failed {
		t.Error("failed = false, want true")
	}
}

func TestReportOfSuccessIsNoFailure(t *testing.T) {
	r := &report{out: new(strings.Builder), buffers: map[test]*strings.Builder{}}
	if err := r.read(strings.NewReader(`{"Action":"pass","Package":"a"}`)); err != nil || r.failed {
		t.Errorf("read = %v, failed = %v, want nil and false", err, r.failed)
	}
}
