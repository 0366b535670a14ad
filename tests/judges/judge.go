// Go's crypto/x509 as a judge: reads cases as JSON, writes what it says of each, "" for accepted.
package main

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type testCase struct {
	Name, Purpose string
	Leaf, Root    []byte
	Chain, Crls   [][]byte
}

func judge(c testCase) error {
	leaf, err := x509.ParseCertificate(c.Leaf)
	if err != nil {
		return err
	}
	root, err := x509.ParseCertificate(c.Root)
	if err != nil {
		return err
	}
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	options.Roots.AddCert(root)
	for _, der := range c.Chain {
		intermediate, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		options.Intermediates.AddCert(intermediate)
	}
	options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if c.Purpose == "server" {
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	paths, err := leaf.Verify(options)
	if err != nil {
		return err
	}
	return checkRevocation(paths[0], c.Crls)
}

// The library reads and verifies lists; looking up serials is left to whoever uses it.
func checkRevocation(path []*x509.Certificate, crls [][]byte) error {
	for position, certificate := range path[:len(path)-1] {
		found := false
		for _, der := range crls {
			list, err := x509.ParseRevocationList(der)
			if err != nil {
				return err
			}
			if list.CheckSignatureFrom(path[position+1]) != nil {
				continue
			}
			found = true
			if now := time.Now(); now.Before(list.ThisUpdate) || now.After(list.NextUpdate) {
				return fmt.Errorf("the revocation list is not current")
			}
			for _, entry := range list.RevokedCertificateEntries {
				if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
					return fmt.Errorf("certificate revoked")
				}
			}
		}
		if !found {
			return fmt.Errorf("no revocation list of its issuer")
		}
	}
	return nil
}

func main() {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	verdicts := map[string]string{}
	for _, c := range cases {
		verdicts[c.Name] = ""
		if err := judge(c); err != nil {
			verdicts[c.Name] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		panic(err)
	}
}
