import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.security.cert.*;
import java.util.*;

/** Java's PKIX as a judge: a line of fields for each case, in base64 but for name and purpose; answers NAME, tab, what it says. */
public class Judge {
    static final CertificateFactory FACTORY;

    static {
        try {
            FACTORY = CertificateFactory.getInstance("X.509");
        } catch (CertificateException error) {
            throw new ExceptionInInitializerError(error);
        }
    }

    static ByteArrayInputStream bytes(String text) {
        return new ByteArrayInputStream(Base64.getDecoder().decode(text));
    }

    static void judge(String[] fields) throws Exception {
        List<X509Certificate> path = new ArrayList<>();
        for (String entry : fields[2].split(",")) {
            path.add((X509Certificate) FACTORY.generateCertificate(bytes(entry)));
        }
        var root = (X509Certificate) FACTORY.generateCertificate(bytes(fields[3]));
        List<CRL> lists = new ArrayList<>();
        for (String entry : fields[4].split(",")) {
            lists.add(FACTORY.generateCRL(bytes(entry)));
        }
        var target = new X509CertSelector();
        target.setExtendedKeyUsage(Set.of(fields[1].equals("server") ? "1.3.6.1.5.5.7.3.1" : "1.3.6.1.5.5.7.3.2"));
        var parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.setTargetCertConstraints(target);
        parameters.setRevocationEnabled(true);
        parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(lists)));
        CertPathValidator.getInstance("PKIX").validate(FACTORY.generateCertPath(path), parameters);
    }

    public static void main(String[] arguments) throws Exception {
        var input = new Scanner(System.in, StandardCharsets.UTF_8);
        while (input.hasNextLine()) {
            String[] fields = input.nextLine().split("\t");
            String said = "";
            try {
                judge(fields);
            } catch (CertPathValidatorException error) {
                said = error.getReason() + ": " + error.getMessage();
            }
            System.out.println(fields[0] + "\t" + said.replace("\n", " "));
        }
    }
}
