package rig

import (
	"fmt"
	"math"
	"slices"
)

// Numbers are what was measured again and again.
type Numbers []float64

// Of returns a number of each value.
func Of[T any](values []T, number func(T) float64) Numbers {
	all := make(Numbers, len(values))
	for i, v := range values {
		all[i] = number(v)
	}
	return all
}

// Median is the middle one, or the mean of the two in the middle.
func (n Numbers) Median() float64 {
	s := slices.Sorted(slices.Values(n))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// Half is what the middle half of them lies between.
func (n Numbers) Half() (low, high float64) {
	s := slices.Sorted(slices.Values(n))
	return s[len(s)/4], s[len(s)-1-len(s)/4]
}

// Percentile is the smallest that p percent of them do not exceed.
func (n Numbers) Percentile(p float64) float64 {
	s := slices.Sorted(slices.Values(n))
	return s[max(0, int(math.Ceil(float64(len(s))*p/100))-1)]
}

// Ratios are those of each number to that of the same round.
func (n Numbers) Ratios(to Numbers) Numbers {
	all := make(Numbers, len(n))
	for i := range n {
		all[i] = n[i] / to[i]
	}
	return all
}

// String is the median, with what the middle half lies between.
func (n Numbers) String() string {
	low, high := n.Half()
	return fmt.Sprintf("%.2f (half of the rounds: %.2f to %.2f)", n.Median(), low, high)
}
